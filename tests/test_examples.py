"""The training example: its measures against closed forms, and a short run from end to end."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is an extra")
pytest.importorskip("matplotlib", reason="matplotlib comes with the extra train")


@pytest.fixture(scope="module")
def contrastive():
    path = Path(__file__).parent.parent / "examples" / "contrastive.py"
    spec = importlib.util.spec_from_file_location("contrastive", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_recall_counts_those_whose_own_is_among_the_best(contrastive):
    similarity = torch.tensor([[3.0, 2, 1], [9, 5, 7], [4, 6, 5]])  # ranks of the own: 1, 3, 2
    assert contrastive.recalls(similarity)["R@1"] == pytest.approx(1 / 3)
    assert contrastive.recalls(similarity)["R@5"] == 1
    assert contrastive.recalls(torch.ones(20, 20)) == {"R@1": 0, "R@5": 0, "R@10": 0}


def test_the_loss_is_symmetric_infonce_without_false_negatives(contrastive):
    torch.manual_seed(0)
    image, other = (torch.nn.functional.normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    masked = torch.zeros(5, 5, dtype=torch.bool)
    masked[1, 3] = masked[3, 1] = True
    expected = 0.0
    logits = 7.0 * image.numpy() @ other.numpy().T
    for i in range(5):
        keep = [j for j in range(5) if not masked[i, j]]
        for row in (logits[i, keep], logits[keep, i]):
            expected += (np.log(np.exp(row).sum()) - logits[i, i]) / 10
    found = contrastive.info_nce(image, other, torch.tensor(7.0), masked)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_shift_takes_what_comes_later(contrastive):
    series = torch.arange(50.0)[None]
    assert contrastive.central(series, 10, 0.0)[0].tolist() == list(range(15, 35))
    assert contrastive.central(series, 10, 1.0)[0].tolist() == list(range(25, 45))
    with pytest.raises(SystemExit, match="too short"):
        contrastive.central(series, 10, 2.0)


def test_training_reports_and_resumes(contrastive, synth_dataset, align_run, tmp_path, capsys):
    out = align_run(
        synth_dataset, split="train=0.5,val=0.5", seed=1,
        options={"image_size": 64, "imu_rate": 100, "window": 4, "stride": 0.5},
    )  # fmt: skip
    common = [str(out), "--results", str(tmp_path), "--batch-size", "8"]
    contrastive.main([*common, "--epochs", "1"])
    contrastive.main([*common, "--epochs", "2"])
    printed = capsys.readouterr().out
    assert printed.count("epoch 1/") == 1
    assert printed.count("epoch 2/2") == 1
    report = json.loads((tmp_path / "retrieval.json").read_text())
    assert len(report["losses"]) == 2
    for name in ("audio", "imu"):
        found = report["retrieval"][name]
        assert found["chance"]["R@1"] == pytest.approx(1 / found["windows"])
        assert 0 <= found[f"image to {name}"]["R@1"] <= found[f"image to {name}"]["R@10"] <= 1
    assert (tmp_path / "retrieval.png").stat().st_size > 10_000
