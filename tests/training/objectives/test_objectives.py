"""Every objective against a slow version in plain Python, and what it must and must not see."""

import math
from collections.abc import Callable
from statistics import median

import pytest
import torch
from torch import Tensor

from model.networks.avsa import AvsaConfig, AvsaNetwork
from model.viewpoints import SoundInput
from training.data.clips import Crops
from training.objectives.avc import Correspondence, PooledCorrespondence
from training.objectives.avsa import Candidates, SpatialAlignment
from training.objectives.avts import TemporalSynchrony
from training.objectives.contrast import TEMPERATURE
from training.objectives.masked import MaskedChoice
from training.objectives.memory import KeyMemory, RememberedAlignment
from training.objectives.pretext import Pretext
from training.objectives.puzzle import Puzzle
from training.objectives.regression import RotationRegression, _figures, on_circle
from training.objectives.samples import Objective, Samples
from training.objectives.together import Together

N, K, D = 5, 4, 8
CONFIG = AvsaConfig(widths=(4, 4, 8, D), embedding=6, sound=SoundInput(n_bands=24))


@pytest.fixture
def network() -> AvsaNetwork:
    torch.manual_seed(0)
    return AvsaNetwork(CONFIG).double().eval()


@pytest.fixture
def samples() -> Samples:
    return draw_samples(1)


def draw_samples(seed: int, n: int = N, k: int = K) -> Samples:
    rng = torch.Generator().manual_seed(seed)
    directions = torch.randn(n, k, 3, generator=rng, dtype=torch.float64)
    return Samples(
        video=torch.randn(n, k, D, generator=rng, dtype=torch.float64),
        audio=torch.randn(n, k, D, generator=rng, dtype=torch.float64),
        directions=torch.nn.functional.normalize(directions, dim=-1),
        viewpoints=(torch.arange(k) // 2).expand(n, k),  # two viewpoints at two moments
        moments=(torch.arange(k) % 2).expand(n, k),
        recordings=torch.arange(n),
        rotations_rad=(torch.rand(n, generator=rng, dtype=torch.float64) - 0.5) * math.tau,
    )


def cosine(one: Tensor, other: Tensor) -> float:
    return sum(float(a) * float(b) for a, b in zip(one, other, strict=True))


def slow_loss(query: Tensor, positive: Tensor, candidates: list[Tensor]) -> float:
    """Eq. 8; the positive is one of the candidates."""
    total = sum(math.exp(cosine(query, other) / TEMPERATURE) for other in candidates)
    return -math.log(math.exp(cosine(query, positive) / TEMPERATURE) / total)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def check_gradient(objective: Objective, network: AvsaNetwork, samples: Samples) -> None:
    """Losses fall along their gradient."""
    tokens = samples.video.clone().requires_grad_()
    torch.manual_seed(3)
    loss, figures = objective(network, Samples(**{**vars(samples), "video": tokens}))
    (gradient,) = torch.autograd.grad(loss, tokens)
    assert gradient.abs().max() > 1e-6
    assert not any(value.requires_grad for value in figures.values())
    torch.manual_seed(3)
    step = samples.video - 1e-3 * gradient / gradient.norm()
    lower, _ = objective(network, Samples(**{**vars(samples), "video": step}))
    assert lower < loss


def test_avc(network: AvsaNetwork, samples: Samples) -> None:
    with torch.no_grad():
        video = network.embed_video(samples.video[:, 0])
        audio = network.embed_audio(samples.audio[:, 0])
        loss, figures = Correspondence()(network, samples)

    one = [slow_loss(video[i], audio[i], list(audio)) for i in range(N)]
    other = [slow_loss(audio[i], video[i], list(video)) for i in range(N)]
    assert float(loss) == pytest.approx((mean(one) + mean(other)) / 2, abs=1e-6, rel=0)
    right = [max(range(N), key=lambda j: cosine(video[i], audio[j])) == i for i in range(N)]
    right += [max(range(N), key=lambda j: cosine(audio[i], video[j])) == i for i in range(N)]
    assert float(figures["instance accuracy"]) == pytest.approx(sum(right) / (2 * N))
    assert set(figures) == {"instance accuracy"}
    check_gradient(Correspondence(), network, samples)


def test_easy_only_pools_crops_before_the_heads(network: AvsaNetwork, samples: Samples) -> None:
    def pooled(tokens: Tensor) -> Tensor:
        return torch.stack([torch.stack(list(crops)).amax(0) for crops in tokens])

    with torch.no_grad():
        seen = network.project_video(pooled(network.to_video(samples.audio)))
        heard = network.project_audio(pooled(network.to_audio(samples.video)))
        video = network.embed_video(pooled(samples.video))
        audio = network.embed_audio(pooled(samples.audio))
        loss, _ = PooledCorrespondence()(network, samples)

    one = [slow_loss(seen[i], video[i], list(video)) for i in range(N)]
    other = [slow_loss(heard[i], audio[i], list(audio)) for i in range(N)]
    assert float(loss) == pytest.approx((mean(one) + mean(other)) / 2, abs=1e-6, rel=0)
    check_gradient(PooledCorrespondence(), network, samples)


def candidates_of(kind: Candidates, targets: Tensor, i: int, k: int) -> list[Tensor]:
    """The candidate sets as the paper, its code and its ablation define them."""
    if kind is Candidates.ALL:
        return [targets[j, other] for j in range(N) for other in range(K)]
    own = [targets[i, other] for other in range(K)]
    if kind is Candidates.OWN:
        return own
    return own + [targets[j, k] for j in range(N) if j != i]


@pytest.mark.parametrize(
    ("kind", "count"),
    [(Candidates.ALL, N * K), (Candidates.PAIRED, K + N - 1), (Candidates.OWN, K)],
)
def test_avsa(network: AvsaNetwork, samples: Samples, kind: Candidates, count: int) -> None:
    with torch.no_grad():
        own = network.embed(samples.video, samples.audio)
        loss, figures = SpatialAlignment(kind)(network, samples)

    losses, right = [], []
    for predicted, targets in (
        (own.video_from_audio, own.video), (own.audio_from_video, own.audio),
    ):  # fmt: skip
        for i in range(N):
            for k in range(K):
                candidates = candidates_of(kind, targets, i, k)
                assert len(candidates) == count
                losses.append(slow_loss(predicted[i, k], targets[i, k], candidates))
                scores = [cosine(predicted[i, k], targets[i, other]) for other in range(K)]
                right.append(max(scores) == scores[k])
    assert float(loss) == pytest.approx(mean(losses), abs=1e-6, rel=0)
    assert float(figures["place accuracy"]) == pytest.approx(mean([float(r) for r in right]))
    assert ("instance accuracy" in figures) is (kind is not Candidates.OWN)
    check_gradient(SpatialAlignment(kind), network, samples)


@pytest.mark.parametrize("translated", [True, False])
def test_avts_has_other_moments_of_the_same_viewpoint(
    network: AvsaNetwork, samples: Samples, translated: bool
) -> None:
    with torch.no_grad():
        own = network.embed(samples.video, samples.audio)
        loss, figures = TemporalSynchrony(translated=translated)(network, samples)

    pairs = [(own.audio, own.video), (own.video, own.audio)]
    if translated:
        pairs = [(own.video_from_audio, own.video), (own.audio_from_video, own.audio)]
    losses = []
    for queries, targets in pairs:
        for i in range(N):
            for k in range(K):
                other_moment = k + 1 if k % 2 == 0 else k - 1
                candidates = [targets[i, k], targets[i, other_moment]]
                candidates += [targets[j, other] for j in range(N) if j != i for other in range(K)]
                losses.append(slow_loss(queries[i, k], targets[i, k], candidates))
    assert float(loss) == pytest.approx(mean(losses), abs=1e-6, rel=0)
    assert set(figures) == {"instance accuracy", "place accuracy"}
    check_gradient(TemporalSynchrony(translated=translated), network, samples)


def test_avsa_and_avts_together_is_avsa_over_viewpoints_and_moments(
    network: AvsaNetwork, samples: Samples
) -> None:
    """Candidates hold those of AVTS and, besides, other viewpoints at any moment."""
    with torch.no_grad():
        both, _ = SpatialAlignment()(network, samples)
        temporal, _ = TemporalSynchrony(translated=True)(network, samples)

    assert both > temporal


def test_puzzle(network: AvsaNetwork, samples: Samples) -> None:
    puzzle = Puzzle(K, D, hidden=16).double()
    shuffle = torch.stack([torch.randperm(K) for _ in range(N)])
    losses, right_crops, right_puzzles = [], [], []
    for i in range(N):
        shuffled = [samples.audio[i, int(shuffle[i, slot])] for slot in range(K)]
        with torch.no_grad():
            tokens = [puzzle.norm(token) for token in (*samples.video[i], *shuffled)]
            hidden = puzzle.arrange[0](torch.cat(tokens)).clamp(min=0)
            table = puzzle.arrange[-1](hidden).view(K, K)
        rights = []
        for crop in range(K):
            slot = shuffle[i].tolist().index(crop)
            total = sum(math.exp(float(score)) for score in table[crop])
            losses.append(-math.log(math.exp(float(table[crop, slot])) / total))
            rights.append(int(table[crop].argmax()) == slot)
        right_crops += rights
        right_puzzles.append(all(rights))

    with torch.no_grad():
        loss, figures = puzzle.compared(samples.video, samples.audio, shuffle)

    assert float(loss) == pytest.approx(mean(losses), abs=1e-6, rel=0)
    assert float(figures["crop accuracy"]) == pytest.approx(sum(right_crops) / (N * K))
    assert float(figures["puzzle accuracy"]) == pytest.approx(sum(right_puzzles) / N)
    check_gradient(puzzle, network, samples)


@pytest.mark.parametrize("n", [N, N - 1])
def test_regression_measures_angles_around_the_circle(network: AvsaNetwork, n: int) -> None:
    samples = draw_samples(1, n)
    regression = RotationRegression(D, hidden=16).double()
    losses, errors = [], []
    with torch.no_grad():
        for i in range(n):
            hidden = [
                regression.pair[0](torch.cat([seen, heard, samples.directions[i, k]])).clamp(min=0)
                for k in range(K)
                for seen in [regression.norm(samples.video[i, k])]
                for heard in [regression.norm(samples.audio[i, k])]
            ]
            x, y = regression.angle(sum(hidden, torch.zeros(16).double()) / K).tolist()
            difference = math.remainder(
                math.atan2(y, x) - float(samples.rotations_rad[i]), math.tau
            )
            losses.append(1 - math.cos(difference))
            errors.append(math.degrees(abs(difference)))
        loss, figures = regression(network, samples)

    assert float(loss) == pytest.approx(mean(losses), abs=1e-6, rel=0)
    assert float(figures["median error deg"]) == pytest.approx(median(errors), abs=1e-5)
    check_gradient(regression, network, samples)


def test_errors_of_a_rotation_are_the_shorter_way_around() -> None:
    told = on_circle(torch.tensor([-175.0, 10.0, 100.0]).deg2rad())

    figures = _figures(told, torch.tensor([175.0, -8.0, 125.0]).deg2rad())  # 10, 18 and 25 off

    assert float(figures["median error deg"]) == pytest.approx(18, abs=1e-3)
    assert float(figures["within 20 deg accuracy"]) == pytest.approx(2 / 3)


def test_masked_choice(network: AvsaNetwork, samples: Samples) -> None:
    objective = MaskedChoice(D, 3).double()
    masked = torch.tensor([[0, 2, 3], [1, 2, 0], [3, 1, 0], [2, 3, 1], [0, 1, 2]])
    losses = []
    with torch.no_grad():
        for own, other, mask, predict, embed in (
            (samples.video, samples.audio, objective.masked_video,
             network.predict_video, network.embed_video),
            (samples.audio, samples.video, objective.masked_audio,
             network.predict_audio, network.embed_audio),
        ):  # fmt: skip
            for i in range(N):
                tokens = torch.stack(
                    [other[i, k] + (mask if k in masked[i] else own[i, k]) for k in range(K)]
                )
                predicted, targets = predict(tokens[None])[0], embed(own[i])
                choices = [targets[k] for k in masked[i]]
                losses += [slow_loss(predicted[k], targets[k], choices) for k in masked[i]]
        loss, _ = objective.compared(network, samples.video, samples.audio, masked)

    assert float(loss) == pytest.approx(mean(losses), abs=1e-6, rel=0)
    check_gradient(objective, network, samples)


def test_a_masked_crop_is_not_seen(network: AvsaNetwork, samples: Samples) -> None:
    """What the translator is given does not change with a masked token."""
    objective = MaskedChoice(D, 2).double()
    masked = torch.tensor([[0, 1]] * N)
    other = samples.video.clone()
    other[:, :2] = torch.randn(N, 2, D)
    inputs: list[Tensor] = []
    network.to_video.register_forward_pre_hook(lambda _, tokens: inputs.append(tokens[0]))

    objective.compared(network, samples.video, samples.audio, masked)
    objective.compared(network, other, samples.audio, masked)

    torch.testing.assert_close(inputs[0], inputs[1])


def test_a_memory_counts_by_direction_and_recording() -> None:
    memory = KeyMemory(6, 2, near_deg=40.0, apart_deg=36.0)
    front, left, between = [1.0, 0, 0], [0, 1.0, 0], [math.cos(0.5), math.sin(0.5), 0]  # 28.6 deg
    memory.push(
        torch.rand(5, 2),
        torch.tensor([front, left, between, front, left]),
        torch.tensor([7, 7, 8, 8, 8]),
    )

    counted = memory.count(torch.tensor([[front, left]]), torch.tensor([7]))[0]

    # Recording 7's own: only the far one. Recording 8's: only the near ones. Never the empty slot.
    assert counted.tolist() == [
        [False, True, True, True, False, False],
        [True, False, False, False, True, False],
    ]


def test_a_memory_counts_up_to_its_angles() -> None:
    """By default other recordings' keys anywhere, the own one's from 36 degrees on."""
    memory = KeyMemory(5, 2)
    opposite = [-1.0, 0, 0]
    turned = [[math.cos(math.radians(a)), math.sin(math.radians(a)), 0] for a in (0, 35, 36)]
    memory.push(torch.rand(4, 2), torch.tensor([opposite, *turned]), torch.tensor([8, 7, 7, 7]))

    counted = memory.count(torch.tensor([[[1.0, 0, 0]]]), torch.tensor([7]))

    assert counted.flatten().tolist() == [True, False, False, True, False]


@pytest.mark.parametrize("sizes", [[3, 3, 3], [2, 4, 5], [12], [5, 13], [2, 9, 1]])
def test_a_memory_keeps_the_latest_keys(sizes: list[int]) -> None:
    memory = KeyMemory(5, 1)
    pushed: list[float] = []
    for size in sizes:
        keys = torch.arange(len(pushed), len(pushed) + size).float()
        memory.push(keys[:, None], torch.ones(size, 3), torch.zeros(size, dtype=torch.int64))
        pushed += keys.tolist()

    assert sorted(memory.keys.flatten().tolist()) == pushed[-5:]


@pytest.mark.parametrize("held_out", [False, True])
def test_avsa_with_a_memory(network: AvsaNetwork, samples: Samples, held_out: bool) -> None:
    """Recordings that are held out are none of those remembered, whatever their numbers."""
    memories = [KeyMemory(64, CONFIG.embedding, near_deg=100.0).double() for _ in range(2)]
    objective = RememberedAlignment(memories[0], memories[1])
    earlier = Samples(**{**vars(draw_samples(9)), "recordings": torch.tensor([0, 1, 8, 9, 10])})
    with torch.no_grad():
        objective(network, earlier)
        plain, _ = SpatialAlignment()(network, samples)
        before = [memory.keys.clone() for memory in memories]
        with_memory, _ = objective.train(not held_out)(network, samples)
        own, old = (network.embed(s.video, s.audio) for s in (samples, earlier))

    losses = []
    for predicted, targets, keys in (
        (own.video_from_audio, own.video, old.video), (own.audio_from_video, own.audio, old.audio),
    ):  # fmt: skip
        for i in range(N):
            for k in range(K):
                candidates = candidates_of(Candidates.ALL, targets, i, k)
                for j in range(N):
                    for other in range(K):
                        angle = math.degrees(
                            math.acos(
                                cosine(samples.directions[i, k], earlier.directions[j, other])
                            )
                        )
                        alike = samples.recordings[i] == earlier.recordings[j]
                        own_recording = alike and not held_out
                        if angle >= 36 if own_recording else angle <= 100:
                            candidates.append(keys[j, other])
                losses.append(slow_loss(predicted[i, k], targets[i, k], candidates))
    assert float(with_memory) == pytest.approx(mean(losses), abs=1e-6, rel=0)
    assert with_memory > plain
    unchanged = [a.equal(b.keys) for a, b in zip(before, memories, strict=True)]
    assert unchanged == [held_out, held_out]
    check_gradient(objective.eval(), network, samples)


def test_together_is_the_weighted_sum(network: AvsaNetwork, samples: Samples) -> None:
    both = Together([("avc", 0.5, Correspondence()), ("avsa", 2.0, SpatialAlignment())])

    loss, figures = both(network, samples)

    first, _ = Correspondence()(network, samples)
    second, of_second = SpatialAlignment()(network, samples)
    torch.testing.assert_close(loss, 0.5 * first + 2 * second)
    assert figures["avsa place accuracy"] == of_second["place accuracy"]
    check_gradient(both, network, samples)


def test_nothing_to_choose_from_is_refused(network: AvsaNetwork) -> None:
    with pytest.raises(ValueError, match="no candidate but the right one"):
        SpatialAlignment(Candidates.OWN)(network, draw_samples(0, k=1))
    with pytest.raises(ValueError, match="1 masked crops leave no choice"):
        MaskedChoice(D, 1)
    with pytest.raises(ValueError, match="5 of 4 crops cannot be masked"):
        MaskedChoice(D, 5)(network, draw_samples(0))
    all_masked, _ = MaskedChoice(D, K).double()(network, draw_samples(0))
    assert all_masked.isfinite()


@pytest.mark.parametrize(
    "make",
    [
        Correspondence,
        PooledCorrespondence,
        TemporalSynchrony,
        SpatialAlignment,
        lambda: SpatialAlignment(Candidates.OWN),
        lambda: Puzzle(K, D),
        lambda: RotationRegression(D),
        lambda: MaskedChoice(D, 2),
        lambda: RememberedAlignment(KeyMemory(40, 6), KeyMemory(40, 6)),
        lambda: Together([("avc", 1.0, Correspondence()), ("puzzle", 1.0, Puzzle(K, D))]),
    ],
    ids=[
        "avc", "easy", "avts", "avsa", "hard", "puzzle", "regression", "masked", "remembered",
        "together",
    ],
)  # fmt: skip
def test_every_objective_is_learned_from_raw_crops(make: Callable[[], Objective]) -> None:
    """Steps on one batch lower the loss, network and objective together."""
    torch.manual_seed(1)
    drawn = draw_samples(2)
    crops = Crops(
        torch.rand(N, K, 3, 2, 16, 16), torch.randn(N, K, 8, 10, 24), drawn.directions.float(),
        drawn.viewpoints, drawn.moments, drawn.recordings, drawn.rotations_rad.float(),
    )  # fmt: skip
    pretext = Pretext(AvsaNetwork(AvsaConfig(**{**vars(CONFIG), "translator": "mlp"})), make())
    optimizer = torch.optim.Adam(pretext.parameters(), lr=5e-3)
    losses = []
    for _ in range(25):
        loss, _ = pretext(crops)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))

    assert mean(losses[-5:]) < 0.9 * mean(losses[:3])
