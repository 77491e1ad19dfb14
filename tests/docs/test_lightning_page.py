"""The page's LightningModule trains to the bit as plain torch does with a loop over chunks."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from support.code_blocks import run_blocks
from torch.utils.data import DataLoader

from bptt.estimators import Chunked
from bptt.layers import LSTM
from bptt.measures import exact_flows
from bptt.model import SequenceModel
from bptt.tasks.base import Batch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "lightning.md"
T, B, CHUNK = 25, 4, 10


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.manual_seed(1)
    names: dict[str, Any] = {}
    run_blocks(PAGE, names)
    module = names["Truncated"]()
    before = copy.deepcopy(module.model)
    batches = [(torch.randn(T, B, 3), torch.randn(T, B, 1)) for _ in range(3)]
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path_factory.mktemp("lightning"),
    )  # fmt: skip
    dataset: Any = batches
    trainer.fit(module, DataLoader(dataset, batch_size=None, num_workers=0))
    return {**names, "module": module, "before": before, "batches": batches}


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_it_equals_a_plain_loop_over_chunks(trained: dict[str, Any]) -> None:
    model = trained["before"]
    lstm, readout = model.layers[0].module, model.readout
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        state = None
        for inputs, targets in trained["batches"]:
            for x, y in zip(inputs.split(CHUNK), targets.split(CHUNK)):
                outputs, state = lstm(x, state)
                state = tuple(each.detach() for each in state)
                (readout(outputs) - y).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
    for (name, own), plain in zip(trained["module"].model.named_parameters(), model.parameters()):
        assert torch.equal(own, plain), name


def test_the_adapted_kernel_trains_as_the_stock_layer_does() -> None:
    names: dict[str, Any] = {}
    run_blocks(PAGE, names)
    model = names["Truncated"]().model
    stock = SequenceModel(LSTM, input_size=3, output_size=1, hidden_size=8)
    for own, theirs in zip(stock.parameters(), model.parameters(), strict=True):
        own.data.copy_(theirs)
    batch = Batch(torch.randn(T, B, 3), torch.randn(T, B, 1))
    for each in (model, stock):
        for _ in Chunked(CHUNK).updates(each, names["squared"], batch, each.initial_state(B)):
            with torch.no_grad():
                for parameter in each.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(0.1 * parameter.grad)
            each.zero_grad()
    for own, theirs in zip(stock.parameters(), model.parameters(), strict=True):
        assert torch.equal(own, theirs)
    flows = [
        exact_flows(each, names["squared"], batch, each.initial_state(B), num_sequences=B) for each in (model, stock)
    ]
    # NaN where a loss does not reach back that far
    torch.testing.assert_close(flows[0][0].by_lag["h"], flows[1][0].by_lag["h"], rtol=1e-4, atol=1e-7, equal_nan=True)
