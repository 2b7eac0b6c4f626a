"""Claims about verdicts, intervals, the sick band and the diagnosis file."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headsurgeon import files, head_stats
from headsurgeon.diagnosis import PROFILES, Thresholds, classify, diagnose, sick_band
from headsurgeon.diagnosis.diagnosis import Diagnosis
from headsurgeon.errors import InputError, ModelError, SettingsError
from headsurgeon.heads import VERDICTS, HeadId
from tests.head_stats import diagnosis_of, stats_of


@pytest.mark.parametrize(
    ("mass", "entropy", "verdict"),
    [
        (0.5, 2.0, "healthy"),
        (np.nextafter(0.5, 1.0), 2.0, "sink"),
        (0.95, 2.0, "sink"),
        (np.nextafter(0.95, 1.0), 2.0, "dead"),
        (1.0, 0.0, "dead"),
        (0.5, 0.5, "healthy"),
        (0.5, np.nextafter(0.5, 0.0), "low-entropy"),
        (0.6, 0.1, "sink"),
        (0.0, 0.0, "low-entropy"),
    ],
)
def test_limits_belong_to_the_milder_verdict(mass: float, entropy: float, verdict: str) -> None:
    found = classify(np.array([[mass]]), np.array([[entropy]]))
    assert found.tolist() == [[verdict]]


@given(
    mass=st.floats(0.0, 1.0),
    entropy=st.floats(0.0, 8.0),
    limits=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=2).map(sorted),
)
def test_every_head_has_exactly_one_verdict(
    mass: float, entropy: float, limits: list[float]
) -> None:
    thresholds = Thresholds(sink=limits[0], dead=limits[1])
    [[verdict]] = classify(np.array([[mass]]), np.array([[entropy]]), thresholds)
    assert verdict in VERDICTS
    assert (verdict in ("sink", "dead")) == (mass > thresholds.sink)


def test_statistics_that_are_not_numbers_get_no_verdict() -> None:
    mass = np.zeros((2, 12))
    mass[1] = np.nan
    with pytest.raises(ModelError, match=r"L1H0, .*L1H7 and 4 more are not finite"):
        classify(mass, np.ones((2, 12)))


def test_thresholds_report_all_faults_at_once() -> None:
    with pytest.raises(SettingsError, match=r"sink 0\.9, dead 0\.5; low_entropy: .* got -1"):
        Thresholds(sink=0.9, dead=0.5, low_entropy=-1.0)


def test_the_paper_profile_has_the_papers_limits() -> None:
    assert PROFILES["paper"] == Thresholds(sink=0.5, dead=0.95, low_entropy=0.5)


def test_counts_add_up_and_sick_heads_are_sinks_and_dead() -> None:
    diagnosis = diagnosis_of([[0.1, 0.6], [0.97, 0.2]], entropy=[[2.0, 2.0], [0.1, 0.1]])
    assert diagnosis.counts == {"healthy": 1, "sink": 1, "dead": 1, "low-entropy": 1}
    assert diagnosis.sick == (HeadId(0, 1), HeadId(1, 0))
    assert diagnosis.per_index.tolist() == [1, 1]
    assert diagnosis.per_layer.tolist() == [1, 1]
    assert diagnosis.verdict(HeadId(1, 0)) == "dead"


def test_a_sweep_counts_the_heads_above_each_limit() -> None:
    diagnosis = diagnosis_of([[0.1, 0.6], [0.97, 0.5]])
    assert diagnosis.sweep([0.05, 0.5, 0.6, 0.99]) == {0.05: 4, 0.5: 2, 0.6: 1, 0.99: 0}


def test_one_document_has_verdicts_without_intervals_and_nothing_is_borderline() -> None:
    diagnosis = diagnose(stats_of(np.full((3, 1, 2), 0.5001), documents=("a", "a", "a")))
    assert diagnosis.verdicts.tolist() == [["sink", "sink"]]
    for bound in (diagnosis.mass_low, diagnosis.mass_high, diagnosis.entropy_low):
        assert np.isnan(bound).all()
    assert not diagnosis.borderline.any()


def test_documents_are_the_unit_and_not_windows() -> None:
    """Copying a document's window ten times says nothing new about other documents."""
    mass = np.array([0.2, 0.8]).reshape(2, 1, 1)
    few = diagnose(stats_of(mass, documents=("a", "b")))
    many = diagnose(stats_of(mass.repeat(10, axis=0), documents=("a",) * 10 + ("b",) * 10))
    assert few.mass_low == many.mass_low == 0.2
    assert few.mass_high == many.mass_high == 0.8


def test_the_intervals_are_around_the_mean_the_verdict_uses() -> None:
    mass = np.array([0.1, 0.1, 0.1, 0.9]).reshape(4, 1, 1)
    diagnosis = diagnose(stats_of(mass, documents=("a", "a", "a", "b")), draws=2000)
    # weighted by windows: (a, a) 0.1, (a, b) (3·0.1 + 0.9) / 4 = 0.3, (b, b) 0.9
    assert diagnosis.stats.first_token_mass.item() == pytest.approx(0.3)
    assert (diagnosis.mass_low.item(), diagnosis.mass_high.item()) == pytest.approx((0.1, 0.9))


@pytest.mark.parametrize(
    ("mass", "entropy", "verdict", "borderline"),
    [
        # mass of two documents; their entropies
        ((0.40, 0.70), (2.0, 2.0), "sink", True),
        ((0.60, 0.70), (2.0, 2.0), "sink", False),
        ((0.30, 0.50), (2.0, 2.0), "healthy", False),
        ((0.30, 0.52), (2.0, 2.0), "healthy", True),
        ((0.94, 0.98), (0.1, 0.1), "dead", True),
        ((0.96, 0.98), (0.1, 0.1), "dead", False),
        ((0.10, 0.10), (0.4, 0.7), "healthy", True),
        ((0.10, 0.10), (0.6, 0.7), "healthy", False),
        ((0.10, 0.10), (0.2, 0.7), "low-entropy", True),
        # the entropy of a sick head does not decide its verdict
        ((0.60, 0.70), (0.2, 0.9), "sink", False),
    ],
)
def test_a_head_is_borderline_when_its_interval_reaches_another_verdict(
    mass: tuple[float, float], entropy: tuple[float, float], verdict: str, borderline: bool
) -> None:
    stats = stats_of(
        np.reshape(mass, (2, 1, 1)), entropy=np.reshape(entropy, (2, 1, 1)), documents=("a", "b")
    )
    diagnosis = diagnose(stats, draws=200)
    assert diagnosis.verdicts.item() == verdict
    assert diagnosis.borderline.item() is borderline


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(SettingsError, match="seed: expected 0 or more, got -1"):
        diagnose(stats_of(np.zeros((1, 1, 1))), seed=-1)


def band_of(*rows: str) -> str:
    return str(sick_band(np.array([[mark == "x" for mark in row] for row in rows])))


def test_the_band_is_the_run_of_indices_with_most_sick_heads() -> None:
    assert band_of("....", "..xx", "..xx") == "heads 2–3, layers 1–2"


def test_a_lone_sick_column_stays_outside_of_the_band() -> None:
    assert band_of("x...xx", "x...xx", "x...xx") == "heads 4–5, layers 0–2"


def test_one_healthy_column_within_the_band_does_not_split_it() -> None:
    assert band_of("xx.xx", "xx.xx") == "heads 0–4, layers 0–1"


def test_without_sick_heads_there_is_no_band() -> None:
    assert sick_band(np.zeros((3, 3), dtype=bool)) is None


def test_the_band_says_which_share_of_the_sick_heads_it_holds() -> None:
    sick = np.zeros((4, 8), dtype=bool)
    sick[1:3, 5:8] = True
    sick[0, 0] = True
    band = sick_band(sick)
    assert band is not None
    assert (band.sick, band.share) == (6, 6 / 7)


@given(st.integers(0, 1000))
def test_the_band_holds_the_head_index_with_most_sick_layers(seed: int) -> None:
    sick = np.random.default_rng(seed).random((4, 6)) < 0.3
    band = sick_band(sick)
    if band is None:
        assert not sick.any()
        return
    counts = sick.sum(axis=0)
    assert counts[band.first_head : band.last_head + 1].max() == counts.max()
    assert 0 < band.sick <= sick.sum()


def test_the_table_has_one_row_per_head_with_its_interval() -> None:
    diagnosis = diagnosis_of([[0.1, 0.6], [0.97, 0.2]])
    frame = diagnosis.to_frame()
    assert frame["name"].tolist() == ["L0H0", "L0H1", "L1H0", "L1H1"]
    assert frame["verdict"].tolist() == ["healthy", "sink", "dead", "healthy"]
    assert (frame["first_token_mass_low"] <= frame["first_token_mass"] + 1e-12).all()
    assert {"slope", "null_mass", "borderline", "entropy_high"} <= set(frame.columns)
    assert frame.columns.is_unique


def assert_equal(a: Diagnosis, b: Diagnosis) -> None:
    for name in ("verdicts", "mass_low", "mass_high", "entropy_low", "entropy_high", "borderline"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name, values in a.stats.values.items():
        np.testing.assert_array_equal(values, b.stats.values[name])
    np.testing.assert_array_equal(a.stats.row_quantiles, b.stats.row_quantiles)
    np.testing.assert_array_equal(a.stats.slopes, b.stats.slopes)
    np.testing.assert_array_equal(a.stats.null_mass, b.stats.null_mass)
    assert a.stats.documents == b.stats.documents
    assert a.stats.provenance == b.stats.provenance
    assert (a.thresholds, a.draws, a.seed) == (b.thresholds, b.draws, b.seed)


@pytest.mark.parametrize("documents", [("a", "b [c]\n {d}", 'e"'), ("a", "a", "a")])
def test_a_saved_diagnosis_comes_back_exactly(documents: tuple[str, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mass = rng.random((3, 2, 4))
    stats = stats_of(mass, entropy=rng.random((3, 2, 4)), documents=documents)
    first = diagnose(stats, Thresholds(sink=0.4, dead=0.9, low_entropy=0.3), draws=100, seed=3)
    first.save(tmp_path / "diagnosis.json")
    assert_equal(first, Diagnosis.load(tmp_path / "diagnosis.json"))


def test_a_saved_diagnosis_opens_with_a_summary_and_keeps_rows_on_one_line(tmp_path: Path) -> None:
    diagnosis_of([[0.1, 0.6], [0.97, 0.2]]).save(tmp_path / "d.json")
    text = (tmp_path / "d.json").read_text()
    content = json.loads(text)
    assert list(content)[:4] == ["kind", "schema", "headsurgeon", "provenance"]
    assert content["sick"] == ["L0H1", "L1H0"]
    assert content["counts"] == {"healthy": 2, "sink": 1, "dead": 1, "low-entropy": 0}
    assert '["healthy", "sink"]' in text


def test_a_diagnosis_as_a_dictionary_comes_back() -> None:
    first = diagnosis_of([[0.1, 0.6]])
    assert_equal(first, Diagnosis(**json.loads(json.dumps(first.model_dump(mode="json")))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slopes": [0.5]}, r"slopes: expected an array \[layer head\]"),
        ({"verdicts": [["sink"]]}, "verdicts: they are not those"),
        ({"mass_low": [[0.1]]}, "mass_low: expected shape"),
        ({"documents": []}, "documents: .*at least 1"),
        ({"values": {}}, "values: expected first_token_mass, .* as well"),
        ({"provenance": {"model": "m"}}, "Provenance: corpus: Field required"),
        ({"draws": None}, "draws: expected a whole number"),
    ],
)
def test_a_damaged_diagnosis_is_refused(change: dict, message: str) -> None:
    content = diagnosis_of([[0.1, 0.6]]).model_dump(mode="json") | change
    with pytest.raises(InputError, match=message):
        Diagnosis(**content)


def test_a_diagnosis_from_before_a_statistic_was_added_is_refused_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d.json"
    diagnosis_of([[0.1, 0.6]]).save(path)
    monkeypatch.setitem(files.SCHEMA_VERSIONS, "diagnosis", 2)
    Diagnosis.load(path)
    monkeypatch.setitem(head_stats.STATISTICS, "query_norm", "ratio")
    with pytest.raises(InputError, match="has schema 1, and 2 is written now") as caught:
        Diagnosis.load(path)
    assert "values: expected query_norm as well" in str(caught.value)
    assert "damaged" not in str(caught.value)


def test_a_statistic_that_nobody_knows_is_refused_by_name() -> None:
    content = diagnosis_of([[0.1, 0.6]]).model_dump(mode="json")
    content["values"]["query_norm"] = content["values"]["entropy"]
    with pytest.raises(InputError, match="values: no statistic query_norm"):
        Diagnosis(**content)


def test_a_file_of_another_kind_or_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"kind": "run"}))
    with pytest.raises(InputError, match="expected a headsurgeon diagnosis file, found run"):
        Diagnosis.load(path)
    path.write_text(json.dumps({"kind": "diagnosis", "schema": 99}))
    with pytest.raises(InputError, match="newer headsurgeon"):
        Diagnosis.load(path)


def test_measuring_again_with_other_thresholds_changes_verdicts_alone() -> None:
    stats = stats_of(np.array([[[0.6, 0.96]]]))
    strict = diagnose(stats, PROFILES["paper"].replace(sink=0.7, dead=0.97))
    assert strict.verdicts.tolist() == [["healthy", "sink"]]
    np.testing.assert_array_equal(strict.mass_low, diagnose(stats).mass_low)
