# The shipped scorer, from nothing: windows, twelve stages of training, calibration. (When the first two were run, scenes were
# not yet laid over others; the windows of the first four were drawn by the engine as it was then, which has changed since.)
# MATERIALS is a folder with panoramas/, sounds/ and rooms/; without the three flags everything is procedural. On two CPU
# cores this takes some hours; on a GPU give pretrain `--preset gpu --device cuda` and ten times the windows.
set -e
: "${MATERIALS:?a folder with panoramas/, sounds/ and rooms/}"
python=.venv/bin/python
from="--panoramas $MATERIALS/panoramas --sounds $MATERIALS/sounds --rooms $MATERIALS/rooms"
# (Stage 1 had the first 1354 of these and was told to stop at step 3200; stage 2 had 2475, and 88 of runs/extended.)
$python -m training.data.windows runs/windows --count 2516 --seed 2100000 --duration-s 6 --workers 2 $from
$python -m training.data.windows runs/extended --count 96 --seed 2500000 --duration-s 6 --body texture --workers 2 $from
$python -m training.data.windows runs/more --count 2819 --seed 2600000 --duration-s 6 --workers 2 $from
$python -m training.data.windows runs/held-out --count 60 --seed 2000000 --workers 2 $from
$python -m training.pretrain --steps 4000 --windows runs/windows --validation runs/held-out --output runs/stage-1
$python -m training.pretrain --steps 800 --learning-rate 1e-3 --seed 1 --start-from runs/stage-1/scorer.safetensors \
  --windows runs/windows runs/extended --validation runs/held-out --output runs/stage-2
$python -m training.pretrain --steps 2500 --learning-rate 1e-3 --seed 3 --start-from runs/stage-2/scorer.safetensors \
  --windows runs/windows runs/extended --validation runs/held-out --output runs/stage-3
$python -m training.pretrain --steps 4500 --learning-rate 1.3e-3 --seed 5 --start-from runs/stage-3/scorer.safetensors \
  --windows runs/windows runs/extended runs/more --validation runs/held-out --output runs/stage-4
# Other scenes, among them plain ones. (Stage 5 began when 2583 of the first were there.)
$python -m training.data.windows runs/later --count 4179 --seed 3000000 --duration-s 6 --workers 2 $from
$python -m training.data.windows runs/plain --count 1322 --seed 3200000 --duration-s 6 --plain --workers 2 $from
$python -m training.data.windows runs/later-extended --count 250 --seed 3400000 --duration-s 6 --body texture --workers 2 $from
$python -m training.data.windows runs/held-out --count 60 --seed 2900000 --plain --workers 2 $from
$python -m training.pretrain --steps 1000 --learning-rate 1e-3 --seed 11 --start-from runs/stage-4/scorer.safetensors \
  --windows runs/later runs/plain runs/later-extended --validation runs/held-out --output runs/stage-5
$python -m training.pretrain --steps 2800 --learning-rate 1.3e-3 --seed 12 --start-from runs/stage-5/scorer.safetensors \
  --windows runs/later runs/plain runs/later-extended --validation runs/held-out --output runs/stage-6
# Still others, among them plain ones with many silent bodies or sustained sound. (The network of the stages before was of
# the sizes that EquivariantConfig has by itself, and grew to those of PretrainConfig here: training.growth.)
$python -m training.data.windows runs/crowded --count 350 --seed 3600000 --duration-s 6 --plain --silent-bodies 10 --workers 2 $from
$python -m training.data.windows runs/crowded --count 250 --seed 3610000 --duration-s 6 --plain --silent-bodies 5 --workers 2 $from
$python -m training.data.windows runs/sustained --count 400 --seed 3620000 --duration-s 6 --plain --envelope sustained --workers 2 $from
$python -m training.data.windows runs/newer --count 1200 --seed 3700000 --duration-s 6 --workers 2 $from
$python -m training.data.windows runs/newer --count 500 --seed 3720000 --duration-s 6 --plain --workers 2 $from
$python -m training.pretrain --steps 6800 --learning-rate 1.5e-3 --seed 21 --start-from runs/stage-6/scorer.safetensors \
  --windows runs/later runs/plain runs/later-extended runs/crowded runs/sustained runs/newer --validation runs/held-out --output runs/stage-7
# More of the plain kinds, and scenes in which all that moves sounds. (Here the network was given `coherence`.) On a CPU it is
# quicker without workers, and where memory is kept from step to step instead of given back.
$python -m training.data.windows runs/crowded-2 --count 300 --seed 3800000 --duration-s 6 --plain --silent-bodies 10 --workers 2 $from
$python -m training.data.windows runs/crowded-2 --count 250 --seed 3810000 --duration-s 6 --plain --silent-bodies 5 --workers 2 $from
$python -m training.data.windows runs/sustained-2 --count 250 --seed 3820000 --duration-s 6 --plain --envelope sustained --workers 2 $from
$python -m training.data.windows runs/plain-2 --count 700 --seed 3830000 --duration-s 6 --plain --workers 2 $from
$python -m training.data.windows runs/single --count 250 --seed 3850000 --duration-s 6 --plain --silent-bodies 0 --workers 2 $from
$python -m training.data.windows runs/single --count 250 --seed 3860000 --duration-s 6 --silent-bodies 0 --workers 2 $from
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=500000000 MALLOC_ARENA_MAX=2
# (Told to stop at step 9780, where the rate was down to a hundredth.)
$python -m training.pretrain --steps 10000 --learning-rate 1.5e-3 --seed 31 --workers 0 --start-from runs/stage-7/scorer.safetensors \
  --windows runs/later runs/plain runs/later-extended runs/crowded runs/sustained runs/newer runs/crowded-2 runs/sustained-2 \
  runs/plain-2 runs/single --validation runs/held-out --output runs/stage-8
# Other scenes, fewer of them plain, from the mean of the two stages before. (Here the mirrored field became a rival.) Two
# processes of one thread each are quicker on two cores than one of two.
$python -m training.data.windows runs/fresh --count 4500 --seed 4000000 --duration-s 6 --workers 2 $from
$python -m training.data.windows runs/fresh --count 300 --seed 4100000 --duration-s 6 --body texture --workers 2 $from
$python -m training.data.windows runs/fresh-plain --count 500 --seed 4200000 --duration-s 6 --plain --workers 2 $from
$python -m training.data.windows runs/unseen --count 150 --seed 2700000 --workers 2 $from
$python -m training.data.windows runs/unseen --count 90 --seed 2750000 --plain --workers 2 $from
$python -m training.average runs/stage-7/scorer.safetensors runs/stage-8/scorer.safetensors --windows runs/unseen \
  --output runs/mean-8.safetensors
OMP_NUM_THREADS=1 .venv/bin/torchrun --nproc-per-node 2 -m training.pretrain --steps 8000 --learning-rate 1.5e-3 --seed 41 \
  --workers 0 --start-from runs/mean-8.safetensors --windows runs/later runs/plain runs/later-extended runs/crowded \
  runs/sustained runs/newer runs/crowded-2 runs/sustained-2 runs/plain-2 runs/single runs/fresh runs/fresh-plain \
  --output runs/stage-9
$python -m training.average runs/stage-8/scorer.safetensors runs/stage-9/scorer.safetensors --windows runs/unseen \
  --output runs/mean-9.safetensors
# Shores and ensembles, each given twice. (The oldest windows were left out by mistake.)
$python -m training.data.windows runs/surf --count 740 --seed 4400000 --duration-s 6 --body surf --workers 2 $from
$python -m training.data.windows runs/ensemble --count 420 --seed 4420000 --duration-s 6 --ensemble --workers 2 $from
OMP_NUM_THREADS=1 .venv/bin/torchrun --nproc-per-node 2 -m training.pretrain --steps 4800 --learning-rate 1.2e-3 --seed 51 \
  --workers 0 --start-from runs/mean-9.safetensors --windows runs/plain runs/later-extended runs/crowded \
  runs/sustained runs/newer runs/crowded-2 runs/sustained-2 runs/plain-2 runs/single runs/fresh runs/fresh-plain \
  runs/surf runs/surf runs/ensemble runs/ensemble --output runs/stage-10
$python -m training.average runs/mean-9.safetensors runs/stage-10/scorer.safetensors --windows runs/unseen \
  --output runs/mean-10.safetensors
# Microphones with faults (`microphones` of the settings, since here: of 0.6 of the scenes).
OMP_NUM_THREADS=1 .venv/bin/torchrun --nproc-per-node 2 -m training.pretrain --steps 5200 --learning-rate 1.2e-3 --seed 61 \
  --workers 0 --start-from runs/mean-10.safetensors --windows runs/later runs/plain runs/later-extended runs/crowded \
  runs/sustained runs/newer runs/crowded-2 runs/sustained-2 runs/plain-2 runs/single runs/fresh runs/fresh-plain \
  runs/surf runs/ensemble --output runs/stage-11
$python -m training.average runs/mean-10.safetensors runs/stage-11/scorer.safetensors --windows runs/unseen --microphones
$python -m training.average runs/mean-10.safetensors runs/stage-11/scorer.safetensors --windows runs/unseen \
  --output runs/mean-11.safetensors
# Windows of 10 s: all before were of 6 s. (Stretches of up to 118 intervals, since here; before of 58, as the shortest window.)
$python -m training.data.windows runs/long --count 700 --seed 4600000 --workers 2 $from
$python -m training.data.windows runs/long --count 600 --seed 4601000 --workers 2 $from
$python -m training.data.windows runs/long --count 113 --seed 4602000 --workers 2 $from
$python -m training.data.windows runs/long --count 100 --seed 4650000 --ensemble --workers 2 $from
$python -m training.data.windows runs/long --count 100 --seed 4660000 --body surf --workers 2 $from
$python -m training.data.windows runs/long-plain --count 450 --seed 4620000 --plain --workers 2 $from
$python -m training.data.windows runs/long-plain --count 300 --seed 4621000 --plain --workers 2 $from
$python -m training.data.windows runs/long-plain --count 120 --seed 4630000 --plain --envelope sustained --workers 2 $from
$python -m training.data.windows runs/long-plain --count 120 --seed 4640000 --plain --silent-bodies 5 --workers 2 $from
$python -m training.data.windows runs/long-plain --count 80 --seed 4641000 --plain --silent-bodies 10 --workers 2 $from
# (Told to stop at step 3920, where the rate was down to a twenty-fifth.)
OMP_NUM_THREADS=1 .venv/bin/torchrun --nproc-per-node 2 -m training.pretrain --steps 4400 --learning-rate 1.2e-3 --seed 71 \
  --workers 0 --start-from runs/mean-11.safetensors --windows runs/later runs/plain runs/later-extended runs/crowded \
  runs/sustained runs/newer runs/crowded-2 runs/sustained-2 runs/plain-2 runs/single runs/fresh runs/fresh-plain \
  runs/surf runs/ensemble runs/long runs/long-plain --output runs/stage-12
mean="training.average runs/mean-11.safetensors runs/stage-12/scorer.safetensors --shares 0.25 0.75 --windows runs/unseen"
$python -m $mean --microphones
$python -m $mean --output model/weights/scorer.safetensors
sh training/runs/calibrate.sh
