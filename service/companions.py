"""Files that may come beside video and tracks, by the name of their field; at most one of each."""

from __future__ import annotations

COMPANIONS = {
    "reference": "an ambisonic recording whose front is the picture's; none: the video's own "
    "ambisonic track, where it declares one and the track is another",
    "orientation": "a CSV file with columns time_s and yaw_deg that says how the microphone turned "
    "against the picture; the output follows it",
    "detections": "objects that a detector found in the video, one JSON object a line with time_s, "
    "box and perhaps score; a clip, if there is one, is the video's name without its suffix",
}
