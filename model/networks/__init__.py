"""Networks: modules only; what goes in and what comes out is the business of other files."""
