"""What requests meet: who calls, what they send, what is answered."""
