"""What a person sees of a real sweep in TensorBoard's own tabs and in comparison.html, in a headless Chromium."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.browser import browser, faults_of, needs_browser, served
from support.script_runner import in_a_process

from bptt.run_folder import RunFolder

pytestmark = needs_browser
SWEEP = (
    "task=copy_memory", "task.delay=10", "task.batch_size=4", "task.train_batches=6", "task.validation_batches=1",
    "model=elman,gru", "model.hidden_size=8", "estimator.chunk_size=10", "seed=1,2", "trainer.val_check_interval=1.0",
    "trainer.max_epochs=1", "trainer.log_every_n_steps=2", "hydra.sweep.dir=sweep",
)  # fmt: skip
MODELS, SEEDS = ("elman", "gru"), (1, 2)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 models × 2 seeds, compared."""
    folder = tmp_path_factory.mktemp("logs")
    for script, *words in (("train.py", "-m", *SWEEP), ("compare_runs.py", "sweep")):
        done = in_a_process(script, *words, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder / "sweep"


@pytest.fixture(scope="module")
def address(sweep: Path) -> Iterator[str]:
    with served(sweep, sweep.parent / "server.txt") as found:
        yield found


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as context:
        yield context.pages[0]


@pytest.fixture
def page(window: Page) -> Iterator[Page]:
    """A page of which the browser does not complain."""
    page = window.context.new_page()
    faults = faults_of(page)
    yield page
    page.close()
    assert faults == []


def test_images_are_named_and_fit_their_cards(page: Page, address: str) -> None:
    page.goto(f"{address}/#images")
    for tag in ("by_lag", "by_timestep"):
        expect(page.get_by_text(f"tag: gradient_flow/figure/{tag}")).to_have_count(len(MODELS) * len(SEEDS))
    pictures = page.locator("tf-image-loader img")
    expect(pictures.nth(2 * len(MODELS) * len(SEEDS) - 1)).to_be_attached()
    for picture in pictures.all():
        expect(picture).to_have_js_property("complete", True)
        assert 0 < picture.evaluate("image => image.naturalWidth") <= 900


def test_related_curves_share_a_chart(page: Page, address: str) -> None:
    page.goto(f"{address}/#custom_scalars")
    for chart in ("layer1 at lag", "horizon", "decay_rate", "transport", "saturation", "loss"):
        expect(page.get_by_text(chart, exact=True).first).to_be_visible()
    expect(page.get_by_text(f"Matches ({len(MODELS) * len(SEEDS)})").first).to_be_visible()
    for model in MODELS:
        expect(page.get_by_text(f"model-{model}_seed-1").first).to_be_visible()


def test_hyperparameters_that_differ_come_first(page: Page, address: str) -> None:
    page.goto(f"{address}/#hparams")
    expect(page.get_by_text("Trial ID").first).to_be_visible()
    shown = page.locator("vaadin-grid-cell-content")
    for model in MODELS:  # the rows are filled after the header
        expect(shown.filter(has_text=re.compile(rf"^\s*{model}\s*$"))).to_have_count(len(SEEDS))
    cells = [text.strip() for text in shown.all_inner_texts()]
    columns = [text for text in cells if text in ("model", "seed", "estimator", "clipping.max")]
    assert set(columns[:2]) == {"model", "seed"}
    assert {"best/validation_loss", "cost/wall_seconds"} <= set(cells)


def test_comparison(page: Page, sweep: Path) -> None:
    """The best model comes first, with the mean and standard deviation over its seeds, and a picture that loads."""
    page.goto((sweep / "comparison.html").as_uri())
    expect(page.get_by_role("heading", level=1)).to_have_text("validation/loss of 4 runs")
    table = page.locator("table").first
    assert table.locator("th").all_inner_texts()[:3] == ["model", "validation/loss", "runs"]
    losses = {
        model: [
            RunFolder(sweep / f"model-{model}_seed-{seed}").read_summary()["metrics"]["validation/loss"]
            for seed in SEEDS
        ]
        for model in MODELS
    }
    best, worst = sorted(MODELS, key=lambda model: sum(losses[model]))
    rows = [row.locator("td").all_inner_texts() for row in table.locator("tr").all()[1:]]
    assert [row[0] for row in rows] == [best, worst]
    for model, shown, number, *_ in rows:
        mean = float(shown.partition(" ")[0])
        assert mean == pytest.approx(sum(losses[model]) / len(SEEDS), abs=0.01)
        assert "±" in shown
        assert number == str(len(SEEDS))
    picture = page.locator("img").first
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("image => image.naturalWidth") > 600
    page.get_by_text("All runs").click()
    for model in MODELS:
        for seed in SEEDS:
            link = page.get_by_role("link", name=f"model-{model}_seed-{seed}").first
            expect(link).to_be_visible()
