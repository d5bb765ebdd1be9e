"""The document: confined, whole, with every number that it draws in words; what is missing is said."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import instructgpt_fast as igf
from instructgpt_fast.cli.command_line import main
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.report import ReportConfig

from . import runs
from .document import Node, parsed


def report_on(folder: Path, **options: Any) -> Node:
    return parsed(igf.report(folder, **options).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the quickstart leaves it, with a run of each stage."""
    folder = tmp_path_factory.mktemp("several")
    runs.write_ppo(folder / "a_policy", findings=[runs.FINDING])
    runs.write_language_model(folder / "base")
    runs.write_reward(folder / "rm")
    return folder


@pytest.fixture(scope="module")
def page(several: Path) -> Node:
    return report_on(several)


def test_the_page_is_confined(several: Path, page: Node) -> None:
    text = (several / "report.html").read_text(encoding="utf-8")
    (policy,) = [node.attributes["content"] for node in page.all("meta")
                 if node.attributes.get("http-equiv") == "Content-Security-Policy"]
    (style,) = page.all("style")
    digest = base64.b64encode(hashlib.sha256(style.text.encode()).digest()).decode()
    rules = dict(part.split(" ", 1) for part in str(policy).split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["style-src"] == f"'sha256-{digest}'"
    assert "script-src" not in rules
    assert page.all("script") == []
    every = page.all()
    names = {name for node in every for name in node.attributes}
    assert not {name for name in names if name == "style" or name.startswith("on")}
    targets = [value for node in every for name, value in node.attributes.items() if name in ("src", "href")]
    assert {str(target) for target in targets if not str(target).startswith("#")} == {"data:,"}
    assert "@import" not in style.text
    assert "url(" not in style.text
    assert len(text) < 500_000


def test_names_are_unique_and_links_lead_somewhere(page: Node) -> None:
    idents = Counter(node.attributes["id"] for node in page.all() if "id" in node.attributes)
    assert [ident for ident, count in idents.items() if count > 1] == []
    for node in page.all():
        for name in ("for", "aria-labelledby"):
            assert node.attributes.get(name) is None or node.attributes[name] in idents
        target = node.attributes.get("href") or ""
        assert not target.startswith("#") or target[1:] in idents


def test_every_drawing_is_told_in_words_and_numbers(page: Node) -> None:
    figures = page.all("figure")
    assert len(figures) > 20
    for figure in figures:
        (drawing,) = figure.all("svg")
        assert drawing.attributes["role"] == "img"
        words = str(drawing.attributes["aria-label"])
        assert re.search(r"\d", words)
        (details,) = figure.all("details")
        assert len(details.rows()) >= 2
        assert not [number for path in drawing.all("path") if "nan" in (number := str(path.attributes["d"]))]


def test_the_sections_are_in_the_order_of_the_stages_and_linked(page: Node) -> None:
    assert [node.text.split()[0] for node in page.all("h2")] == ["All", "Pretraining", "Reward", "PPO"]
    (overview,) = page.all("section", "overview")
    rows = overview.rows()
    assert [row[0] for row in rows[1:]] == ["base", "rm", "a_policy"]
    last = dict(zip(rows[0], rows[3], strict=True))
    assert last["findings"] == "kl_runaway"
    assert last["of ceiling"] == "25%"
    assert dict(zip(rows[0], rows[1], strict=True))["findings"] == "none"


def test_numbers_are_those_of_the_records(page: Node) -> None:
    records = runs.ppo_records(40)
    rows = page.figure("KL to the reference").rows()
    assert rows[1] == ["1", f"{records[0]['objective/kl']:.5g}"]
    assert rows[-1] == ["40", f"{records[-1]['objective/kl']:.5g}"]
    assert page.figure("Reward").rows()[1:] == [["10", "1"], ["20", "2"], ["30", "3"]]
    loss = page.figure("Perplexity").rows()
    assert loss[0] == ["step", "training", "held out"]
    final = math.exp(3 + 5 / 30)
    assert loss[-1][0] == "30"
    assert float(loss[-1][1]) == pytest.approx(final, rel=1e-4)
    assert float(loss[-1][2]) == pytest.approx(final * math.exp(0.1), rel=1e-4)


def test_the_frontier_has_a_point_for_each_record(page: Node) -> None:
    figure = page.figure("Reward against KL")
    points = [node for node in figure.all("circle") if "step" in node.classes]
    assert len(points) == 40
    records = runs.ppo_records(40)
    for point, record in zip(points, records, strict=True):
        assert point.text.startswith(f"step {record['step']}: KL ")
    # The place follows sqrt(KL): thirds between three points are those of the roots.
    x = [float(str(point.attributes["cx"])) for point in points]
    roots = [math.sqrt(record["objective/kl"]) for record in records]
    assert (x[20] - x[0]) / (x[39] - x[0]) == pytest.approx((roots[20] - roots[0]) / (roots[39] - roots[0]), abs=2e-3)
    shades = [next(name for name in point.classes if name.startswith("s") and name != "step") for point in points]
    assert shades == sorted(shades)
    assert (shades[0], shades[-1]) == ("s0", "s7")


def test_reward_models_show_accuracy_by_k_and_calibration(page: Node) -> None:
    assert page.figure("Accuracy by K").rows()[1:] == [
        ["K = 4", "74.0% ± 3.0%", "400"], ["K = 5", "76.0% ± 3.0%", "500"], ["K = 9", "84.0% ± 3.0%", "900"],
        ["all", "72.0% ± 2.0%", "1,875"],
    ]
    figure = page.figure("Calibration")
    assert "Expected calibration error 4.0 points" in figure.text
    assert figure.rows()[1] == ["50% to 55%", "52.5%", "52.0%", "300"]
    assert len(figure.all("circle")) == 10


def test_findings_stand_on_top_with_evidence_and_remedy(page: Node) -> None:
    (finding,) = page.all("article", "finding")
    for words in ("error", "The KL runs away", "kl_runaway, from step 12", "0.1 to 48 nats", "kl_coef is 0.",
                  "Set kl_coef=0.02."):
        assert words in finding.text
    (nothing, _) = page.all("div", "verdict")
    assert "Nothing found in 33 records" in nothing.text
    looked = {row[0]: row[1] for row in nothing.rows()[1:]}
    assert looked["The loss diverges"] == "not found"
    assert looked["Gradients overflow fp16 again and again"] == "not found"


def test_speed_is_told_as_a_share_of_the_ceiling_or_why_not(page: Node) -> None:
    told = [node.text for node in page.all("div", "stated")]
    assert "no run.json" in told[0]
    assert "25.0 %" in told[2]
    assert "60 GFLOP/s of 240 GFLOP/s" in told[2]
    time = page.figure("Time of an iteration")
    assert "rollout 17 %, score 25 %, update 58 % of 48 s." in time.text


def test_options_that_were_chosen_come_first_with_default_and_mark(page: Node) -> None:
    options = page.all("details", "options")[2]
    rows = {row[0]: row[1:] for row in options.rows()}
    assert rows["kl_coef"] == ["0.1", "0.02", "P"]
    assert rows["policy"][1] == "required"
    assert rows["cliprange_value"] == ["0.2", "", "A"]
    names = [row[0] for row in options.rows()]
    assert names.index("kl_coef") < names.index("cliprange_value")
    assert rows["max_grad_norm"][2] == "O"


def test_what_is_missing_is_said_and_no_empty_chart_is_drawn(tmp_path: Path) -> None:
    runs.write_language_model(tmp_path / "base", evaluated=False)
    runs.write_reward(tmp_path / "rm", calibrated=False)
    runs.write_metrics(tmp_path / "started", [])
    runs.write_metrics(tmp_path / "strange", [{"step": 1, "objective/kl": 1.0}])
    page = report_on(tmp_path)
    missing = {node.all("h4")[0].text: node.text for node in page.all("div", "absent") if node.all("h4")}
    assert "not given eval_data" in missing["Held-out loss"]
    assert "calibration.json is missing" in missing["Calibration"]
    assert "holds no record of loss" in missing["Loss"]
    started = next(node for node in page.all("section", "run") if "started" in node.text[:60])
    assert "the run stopped before its first" in started.text
    assert started.all("figure") == []
    assert all(figure.all("path", "line") or figure.all("circle") for figure in page.all("figure"))


def test_ppo_without_its_metrics_names_each(tmp_path: Path) -> None:
    runs.write_ppo(tmp_path, steps=3, samples=0)
    runs.write_metrics(tmp_path, [{"step": 1, "objective/kl": 1.0}])
    page = report_on(tmp_path)
    missing = {node.all("h4")[0].text for node in page.all("div", "absent") if node.all("h4")}
    assert {"Reward against KL", "Score", "Probability ratio", "Time of an iteration", "Throughput"} <= missing
    assert [figure.all("h4")[0].text for figure in page.all("figure")] == ["KL to the reference"]


def test_one_single_step(tmp_path: Path) -> None:
    runs.write_ppo(tmp_path, steps=1, samples=1)
    page = report_on(tmp_path)
    kl = page.figure("KL to the reference")
    assert len(kl.all("circle")) == 1
    assert kl.rows()[1:] == [["1", f"{runs.ppo_records(1)[0]['objective/kl']:.5g}"]]


def test_values_that_are_not_finite_are_shown_as_what_they_are(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [{"step": step, "loss": 3.0, "grad_norm": math.inf} for step in range(1, 20)]
    records[6]["loss"] = math.nan
    runs.write_metrics(tmp_path, records)
    page = report_on(tmp_path)
    loss = page.figure("Loss")
    assert ["7", "nan"] in loss.rows()
    assert "not finite in 1 of 19 records, first at step 7" in loss.text
    assert len(loss.all("path", "cross")) == 1
    (line,) = loss.all("path", "line")
    assert str(line.attributes["d"]).count("M") == 2, "the line is broken where a value is missing"
    (norm,) = [node for node in page.all("div", "absent") if "Gradient norm" in node.text]
    assert "no finite value in 19 records" in norm.text


def test_a_crashed_run_is_diagnosed_from_its_records(tmp_path: Path) -> None:
    records = [{**record, "policy/clipfrac_avg": 0.8, "policy/approxkl_avg": 3.0} for record in runs.ppo_records(20)]
    runs.write_ppo(tmp_path, steps=20)
    runs.write_metrics(tmp_path, records, '{"step": 21')
    for name in ("findings.json", "result.json"):
        (tmp_path / name).unlink()
    page = report_on(tmp_path)
    assert "learning_rate_too_high" in page.all("div", "findings")[0].text
    assert "not finished: last record at step 20" in page.text
    assert "half a line" in page.text


def test_a_long_run_of_ppo_stays_small(tmp_path: Path) -> None:
    runs.write_ppo(tmp_path, steps=1500)
    assert igf.report(tmp_path).stat().st_size < 400_000


@pytest.mark.slow
def test_a_hundred_thousand_records_stay_small(tmp_path: Path) -> None:
    peak = 61_803
    records = [{"step": i, "loss": 50.0 if i == peak else 3 + 1 / i, "grad_norm": 1.0, "learning_rate": 1e-4,
                "tokens_per_second": 1e4} for i in range(1, 100_001)]
    runs.write_metrics(tmp_path, records)
    path = igf.report(tmp_path)
    assert path.stat().st_size < 200_000
    page = parsed(path.read_text(encoding="utf-8"))
    assert ["61,803", "50"] in page.figure("Loss").rows()
    assert "highest 50 at step 61,803" in page.figure("Loss").text


def test_what_a_run_wrote_is_text(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>/*{style}*/<!--{main}-->"
    runs.write_ppo(tmp_path, steps=2, samples=0)
    runs.SamplesLog(tmp_path).write([runs.sample(0, evil, 0, 0.0), runs.sample(2, evil, 0, 0.5)])
    page = report_on(tmp_path)
    assert page.all("img") == []
    assert page.all("p", "prompt")[0].text == evil


def test_the_command_and_the_python_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.write_language_model(tmp_path / "run", steps=2)
    target = tmp_path / "elsewhere.html"
    assert main(["report", str(tmp_path / "run"), "--output", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert igf.report(ReportConfig(run=str(tmp_path / "run"))) == tmp_path / "run" / "report.html"
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "must be a directory" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="cannot write"):
        igf.report(tmp_path / "run", output=str(tmp_path / "no" / "such" / "folder.html"))
    with pytest.raises(ConfigError, match="at least 0"):
        igf.report(tmp_path / "run", samples=-1)
