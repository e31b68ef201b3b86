import random

from runyard.adapters.docker.collector import FRESH_S, LEFTOVER_S, Held, layers_of, to_remove

NOW = 1_000_000.0
BASE = ("base", 100)


def held(id: str, size: int, age: float, *below: tuple[str, int], in_use: bool = False, leftover: bool = False) -> Held:
    layers = (*below, (id, size))
    return Held(id=id, layers=layers, used_at=NOW - age, in_use=in_use, leftover=leftover)


def removed(*images: Held, bytes_max: int = 0, lacking: int = 0) -> list[str]:
    return [image.id for image in to_remove(images, bytes_max=bytes_max, lacking=lacking, now=NOW)]


def test_nothing_goes_while_there_is_room() -> None:
    images = held("a", 50, 5000), held("b", 50, 9000)

    assert [] == removed(*images)
    assert [] == removed(*images, bytes_max=100)


def test_what_was_unused_for_longest_goes_first_and_no_more_than_needed() -> None:
    images = held("a", 50, 5000), held("b", 50, 9000), held("c", 50, 7000)

    assert ["b"] == removed(*images, bytes_max=100)
    assert ["b", "c"] == removed(*images, bytes_max=99)
    assert ["b", "c"] == removed(*images, lacking=51)
    assert ["b", "c", "a"] == removed(*images, lacking=10**9)


def test_what_is_in_use_or_fresh_stays() -> None:
    images = held("a", 50, 9000, in_use=True), held("b", 50, FRESH_S - 1), held("c", 50, 2000)

    assert ["c"] == removed(*images, bytes_max=1)


def test_shared_layers_count_once_and_go_with_their_last_user() -> None:
    images = held("a", 10, 9000, BASE), held("b", 10, 8000, BASE), held("c", 10, 7000, BASE)

    assert [] == removed(*images, bytes_max=130)
    assert ["a"] == removed(*images, bytes_max=120)
    assert ["a", "b"] == removed(*images, bytes_max=119)
    assert ["a", "b", "c"] == removed(*images, bytes_max=109)


def test_what_would_give_nothing_stays() -> None:
    base = Held(id="base", layers=(BASE,), used_at=NOW - 9000)

    assert [] == removed(base, held("a", 10, 8000, BASE, in_use=True), bytes_max=1)


def test_leftovers_of_builds_go_when_they_are_old() -> None:
    images = held("young", 10, LEFTOVER_S - 1, leftover=True), held("old", 10, LEFTOVER_S, leftover=True)

    assert ["old"] == removed(*images)
    assert ["old", "young"] == removed(*images, bytes_max=1)


def test_history_tells_layers_apart_by_all_that_is_below() -> None:
    def step(text: str, size: int) -> dict[str, object]:
        return {"CreatedBy": text, "Created": 1, "Size": size}

    one = layers_of([step("COPY a", 5), step("ENV x", 0), step("base", 100)])
    other = layers_of([step("COPY a", 5), step("ENV y", 0), step("base", 100)])

    assert [100, 5] == [size for _, size in one]
    assert one[0] == other[0]
    assert one[1] != other[1]


def test_enough_goes_or_all_that_may() -> None:
    for seed in range(300):
        dice = random.Random(seed)
        layers = [(str(n), dice.randrange(1, 100)) for n in range(6)]
        images = [
            Held(
                id=str(n),
                layers=tuple(dice.sample(layers, dice.randrange(1, 6))),
                used_at=NOW - dice.randrange(0, 5000),
                in_use=dice.random() < 0.3,
            )
            for n in range(6)
        ]
        bytes_max = dice.randrange(1, 400)
        going = to_remove(images, bytes_max=bytes_max, lacking=0, now=NOW)
        left = [image for image in images if image not in going]
        taken = sum(dict(layer for image in left for layer in image.layers).values())

        assert not any(image.in_use or NOW - image.used_at < FRESH_S for image in going), seed
        if taken > bytes_max:
            alone = {layer for image in left for layer in image.layers}
            for image in left:
                others = {layer for other in left if other is not image for layer in other.layers}
                frees = alone - others
                stays = image.in_use or NOW - image.used_at < FRESH_S
                assert stays or not frees, seed
