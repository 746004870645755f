from fashion_pipeline.core.training.tags import parts_of, shortened, variants

CAPTION = "a photo of a coat, red, wool, winter"


def test_the_first_part_stays_and_the_others_come_in_any_order_or_not_at_all():
    found = variants(CAPTION, 50, dropout=0.3, shuffle=True, seed=0)
    assert len(found) == 50
    assert all(text.startswith("a photo of a coat") for text in found)
    assert {part for text in found for part in text.split(", ")[1:]} == {"red", "wool", "winter"}
    lengths = [len(text.split(", ")) for text in found]
    assert min(lengths) < 4 and max(lengths) == 4
    assert len(set(found)) > 10


def test_the_share_left_out_is_the_one_asked_for():
    found = variants(CAPTION, 2000, dropout=0.25, shuffle=False, seed=0)
    kept = sum(len(text.split(", ")) - 1 for text in found) / (3 * 2000)
    assert abs(kept - 0.75) < 0.03
    in_order = [[CAPTION.index(part) for part in text.split(", ")] for text in found]
    assert all(places == sorted(places) for places in in_order)


def test_without_anything_to_vary_a_caption_has_one_variant():
    assert variants("a photo of a coat", 8, dropout=0.5, shuffle=True, seed=0) == ["a photo of a coat"]
    assert variants(CAPTION, 8, dropout=0.0, shuffle=False, seed=0) == [CAPTION]


def test_the_same_seed_gives_the_same_variants():
    first, again, other = (variants(CAPTION, 20, dropout=0.3, shuffle=True, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_parts_are_not_torn_inside_brackets_and_full_width_commas_split() -> None:
    assert parts_of("a dress, (red, blue:1.3), [long, wide], belt") == [
        "a dress",
        "(red, blue:1.3)",
        "[long, wide]",
        "belt",
    ]
    assert parts_of("一件洋裝，紅色、長袖, 腰帶") == ["一件洋裝", "紅色", "長袖", "腰帶"]
    assert parts_of("a dress (red, long") == ["a dress (red", "long"] and parts_of("a smile :), red") == [
        "a smile :)",
        "red",
    ]
    told = set(variants("a dress, (red, blue:1.3), long", 40, dropout=0.5, shuffle=True, seed=0))
    assert all(("(red" in variant) == ("blue:1.3)" in variant) for variant in told) and len(told) > 2


def test_what_fits_of_a_caption_that_is_too_long_is_kept() -> None:
    def fits(text: str) -> bool:
        return len(text.split()) <= 5

    assert shortened("a red,long coat", fits) == "a red,long coat", "as it was written"
    assert shortened("a coat, red, very long, with a belt, and more", fits) == "a coat, red, very long"
    assert shortened("a very long red coat with a belt, blue", fits) == "a very long red coat"
    assert shortened("", fits) == "" and shortened("word", lambda text: not text) == ""
