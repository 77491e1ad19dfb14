"""Curves as values of a TensorBoard summary."""

from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING

from bptt.tensorboard_tab.curve import Curve, to_bytes

PLUGIN = "gradient_flow"  # name in event files, in the tab's URL and in --samples_per_plugin
LOOKS_KEPT = 200  # looks of each curve kept by TensorBoard without --samples_per_plugin; its own default is 10 or 100


def summary_value(tag: str, curve: Curve) -> Summary.Value:
    """The curve as a scalar tensor of bytes. TensorBoard passes it to this tab only."""
    # data_class: without it, TensorBoard's fast data server drops the value
    plugin_data = SummaryMetadata.PluginData(plugin_name=PLUGIN, content=b'{"version":1}')
    metadata = SummaryMetadata(plugin_data=plugin_data, data_class=DATA_CLASS_TENSOR)
    tensor = TensorProto(dtype=DT_STRING, string_val=[to_bytes(curve)])
    tensor.tensor_shape.SetInParent()
    return Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
