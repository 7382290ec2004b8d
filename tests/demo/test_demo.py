"""The demo: its figures agree with NUTS and with what theory orders, in the tour and in full."""

import matplotlib.image
import numpy as np
import pytest

from demo.__main__ import main, PARTS, TOUR

PICTURES = {"hierarchical": 3, "outliers": 3}  # of the other parts 1


def shown(arguments, names, folder, capsys):
    """The reports by part; the fits of all are near their reference, and the pictures are drawn."""
    reports = dict(zip(names, main([*arguments, "--out", str(folder)]), strict=True))
    text = capsys.readouterr().out
    for name, report in reports.items():
        if name == "tables":  # which have no NUTS to compare with
            continue
        assert "0 divergent" in report.remarks[0]
        reference, *fits = report.rows
        assert fits
        for row in fits:
            assert row.strategy in text
            assert set(reference.tree["posterior"].data_vars) == set(
                row.tree["posterior"].data_vars
            )
    overview = int(len(names) == len(PARTS))
    pictures = sorted(folder.glob("*.png"))
    assert len(pictures) == sum(PICTURES.get(name, 1) for name in names) + overview
    for picture in pictures:
        assert str(picture) in text
        pixels = matplotlib.image.imread(picture)
        assert min(pixels.shape[:2]) > 400 and pixels[..., :3].std() > 0.02
    return reports


def check_regression(report):
    """Of a regression by an ELBO and an importance-weighted bound."""
    fits = [row for row in report.rows if row.objective in ("ELBO", "IWELBO-8")]
    bounds = {}
    for row in fits:
        bounds.setdefault(row.objective, row.bound)
        assert np.max(np.abs(row.mean_errors)) < 0.5
        assert np.max(np.abs(row.sd_errors)) < 0.6
        assert row.gradient_variance is None or 0 < row.gradient_variance < np.inf
    elbo, iwelbo = bounds["ELBO"], bounds["IWELBO-8"]
    assert elbo[0] < iwelbo[0] + 5 * np.hypot(elbo[1], iwelbo[1])
    # The tighter bound has the wider, here better, guide.
    widths = {row.objective: np.mean(np.abs(row.sd_errors)) for row in reversed(fits)}
    assert widths["IWELBO-8"] < widths["ELBO"]


def check_pillars(reports):
    """The parts of the tour."""
    check_regression(reports["outliers"])
    assert all(row.extra["P(outlier) error"] < 0.2 for row in reports["outliers"].rows[1:])
    reference, *fits = reports["grids"].rows
    for row in (reference, *fits):  # a line across each gap is off by 0.68
        assert 0.3 < row.extra["gap error (ppm)"] < 0.5
        assert 0.75 < row.extra["in 90 %"] < 0.95
    assert all(np.max(np.abs(row.mean_errors)) < 0.6 for row in fits)
    reference, *fits = reports["processes"].rows
    for row in (reference, *fits):
        assert row.extra["held out (nats)"] > -1.25  # a constant with the right variance: -1.36
        assert 0.75 < row.extra["in 90 %"] <= 0.98  # of 50 years
    exact, sparse = fits
    assert sparse.bound[0] < exact.bound[0]  # a bound of the same evidence
    reference, *fits = reports["cycles"].rows
    for row in (reference, *fits):
        assert row.extra["held out (nats)"] > -1.3  # the standard deviation of other years: -1.5
        assert 0.7 < row.extra["in 90 %"] <= 1.0
    assert all(np.max(np.abs(row.mean_errors)) < 0.6 for row in fits)


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.timeout(900)
@pytest.mark.compiles(600, "four programs with their pictures")
def test_the_tour_agrees_with_nuts_and_draws_its_pictures(tmp_path, capsys):
    check_pillars(shown([], TOUR, tmp_path, capsys))


@pytest.mark.nightly
@pytest.mark.optimised
@pytest.mark.timeout(3600)
def test_the_whole_demo_agrees_with_nuts_and_draws_its_pictures(tmp_path, capsys):
    reports = shown(["--all"], list(PARTS), tmp_path, capsys)
    check_pillars(reports)
    check_regression(reports["hierarchical"])
    reference, *fits = reports["networks"].rows
    for row in (reference, *fits):
        assert row.extra["held out (nats)"] > -0.4  # a constant with the right variance: -1.42
        assert 0.8 < row.extra["in 90 %"] < 0.98  # of 117 households
    assert np.max(np.abs(fits[-1].mean_errors)) < 1.0  # Laplace's approximation
    assert np.max(np.abs(fits[-1].sd_errors)) < 0.5
    reference, *fits = reports["sparse"].rows
    for row in (reference, *fits):
        assert row.extra["held out (nats)"] > -1.25  # a constant with the right variance: -1.42
        assert 0.84 < row.extra["in 90 %"] < 0.96  # of 221 patients
    assert all(np.max(np.abs(row.mean_errors)) < 0.6 for row in fits)
    network, *others = reports["tables"].rows
    assert all(0.9 < row.extra["accuracy"] < 1 for row in (network, *others))
    assert network.extra["log loss"] < 0.22  # of the other estimators 0.17 to 0.28
    assert network.extra["ECE"] < 0.05
    _, predictive, urn = reports["martingale"].rows
    assert np.max(np.abs(predictive.mean_errors)) < 0.5  # of NUTS' standard deviations
    assert np.max(np.abs(predictive.sd_errors)) < 0.4  # 100 samples
    assert np.max(np.abs(urn.mean_errors)) < 0.6 and np.max(np.abs(urn.sd_errors)) < 0.6
    same = [row.bound for row in reports["outliers"].rows if row.objective == "ELBO"]
    for bound in same[1:]:  # one objective, estimated in several ways
        assert abs(same[0][0] - bound[0]) < 5 * np.hypot(same[0][1], bound[1]) + 0.05
    reference, *families = reports["families"].rows
    assert reference is reports["hierarchical"].rows[0]
    for row in families:
        assert np.max(np.abs(row.mean_errors)) < 0.3 and np.max(np.abs(row.sd_errors)) < 0.5
        assert row.extra["Pareto k-hat"] < 1.0


def test_a_part_that_does_not_exist_is_refused_with_the_ones_that_do(capsys):
    with pytest.raises(SystemExit):
        main(["hierarchy"])
    assert f"there are {', '.join(PARTS)}" in capsys.readouterr().err
