"""The demo in its fast mode: its figures agree with NUTS and with what theory orders."""

import matplotlib.image
import numpy as np
import pytest

from demo.__main__ import main


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_fast_demo_agrees_with_nuts_and_draws_its_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BAYESJX_FAST", "1")
    reports = main(["--out", str(tmp_path)])
    text = capsys.readouterr().out
    for report in reports[:2]:
        reference, *fits = report.rows
        assert "0 divergent" in report.remarks[0]
        bounds = {row.objective: row.bound for row in fits}
        elbo, iwelbo = bounds["ELBO"], bounds["IWELBO-8"]
        assert elbo[0] < iwelbo[0] + 5 * np.hypot(elbo[1], iwelbo[1])
        for row in fits:
            assert row.strategy in text
            assert np.max(np.abs(row.mean_errors)) < 0.5
            assert np.max(np.abs(row.sd_errors)) < 0.6
            assert 0 < row.gradient_variance < np.inf
            assert set(reference.tree["posterior"].data_vars) == set(
                row.tree["posterior"].data_vars
            )
        # The tighter bound has the wider, here better, guide.
        spreads = {row.objective: np.mean(np.abs(row.sd_errors)) for row in fits}
        assert spreads["IWELBO-8"] < spreads["ELBO"]
    same = [row.bound for row in reports[1].rows if row.objective == "ELBO"]
    assert abs(same[0][0] - same[1][0]) < 5 * np.hypot(same[0][1], same[1][1]) + 0.05
    assert all(row.extra["P(outlier) error"] < 0.2 for row in reports[1].rows[1:])
    reference, *families = reports[2].rows
    assert reference is reports[0].rows[0]
    for row in families:
        assert row.strategy in text
        assert np.max(np.abs(row.mean_errors)) < 0.3 and np.max(np.abs(row.sd_errors)) < 0.5
        assert row.extra["Pareto k-hat"] < 1.0
    reference, *fits = reports[3].rows
    assert "0 divergent" in reports[3].remarks[0]
    for row in (reference, *fits):  # a line across each gap is off by 0.68
        assert 0.3 < row.extra["gap error (ppm)"] < 0.5
        assert 0.75 < row.extra["in 90 %"] < 0.95
    assert all(np.max(np.abs(row.mean_errors)) < 0.6 for row in fits)
    reference, *fits = reports[4].rows
    assert "0 divergent" in reports[4].remarks[0]
    for row in (reference, *fits):
        assert row.extra["held out (nats)"] > -1.25  # a constant with the right variance: -1.36
        assert 0.75 < row.extra["in 90 %"] < 0.98
    exact, sparse = fits
    assert sparse.bound[0] < exact.bound[0]  # a bound of the same evidence
    reference, *fits = reports[5].rows
    assert "0 divergent" in reports[5].remarks[0]
    for row in (reference, *fits):
        assert row.extra["held out (nats)"] > -1.3  # the spread of the other years: -1.5
        assert 0.7 < row.extra["in 90 %"] <= 1.0
    assert all(np.max(np.abs(row.mean_errors)) < 0.6 for row in fits)
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 11
    for picture in pictures:
        assert str(picture) in text
        pixels = matplotlib.image.imread(picture)
        assert min(pixels.shape[:2]) > 400 and pixels[..., :3].std() > 0.02


def test_a_part_that_does_not_exist_is_refused_with_the_ones_that_do(capsys):
    with pytest.raises(SystemExit):
        main(["hierarchy"])
    assert (
        "there are hierarchical, outliers, families, grids, processes, cycles"
        in capsys.readouterr().err
    )
