# Refits fused.json and evidence.json in model/weights on scenes that no training has seen.
set -e
: "${MATERIALS:?a folder with panoramas/, sounds/ and rooms/}"
python=.venv/bin/python
from="--panoramas $MATERIALS/panoramas --sounds $MATERIALS/sounds --rooms $MATERIALS/rooms"
$python -m training.data.windows runs/calibration --count 260 --seed 100000 --workers 2 $from
$python -m training.data.windows runs/calibration --count 200 --seed 160000 --plain --workers 2 $from
$python -m training.data.windows runs/calibration-single --count 60 --seed 170000 --sources 1 --silent-bodies 0 --workers 2 $from
$python -m training.data.windows runs/calibration-single --count 80 --seed 175000 --sources 1 --silent-bodies 0 --plain --workers 2 $from
$python -m training.data.windows runs/calibration-wide --count 60 --seed 4500000 --body surf --workers 2 $from
$python -m training.data.windows runs/calibration-wide --count 60 --seed 4520000 --ensemble --workers 2 $from
$python -m training.data.windows runs/calibration-long --count 32 --seed 150000 --duration-s 30 --workers 2 $from
$python -m training.data.windows runs/calibration-long --count 24 --seed 155000 --duration-s 30 --plain --workers 2 $from
for method in fused evidence; do
  $python -m training.calibrate --windows runs/calibration runs/calibration-single runs/calibration-wide --long runs/calibration-long --method $method
done
# What a detector's boxes count, in both (by the windows whose scenes are drawn again: copy them to a folder of their own).
mkdir -p runs/calibration-drawn
cp runs/calibration/scene-*.safetensors runs/calibration-drawn/
$python -m training.fit_detections runs/calibration-drawn --write $from
