"""What a model.toml may say, and what a wrong one gets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqinfer.config import ModelSettings
from zmqinfer.errors import ConfigError
from zmqinfer.model_config import ModelConfig, parse_model_toml
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import DTYPES, MAX_ELEMENTS, MAX_TENSORS

PATH = Path("models/scorer/model.toml")

TENSORS = """
[inputs.x]
dtype = "FP32"
shape = [64]
[outputs.y]
dtype = "FP32"
shape = [10]
"""


def parse(text: str, name: str = "scorer") -> ModelConfig:
    return parse_model_toml(text, PATH, name)


def refused(text: str, name: str = "scorer") -> str:
    """Returns the one sentence, without the file that it begins with."""
    with pytest.raises(ConfigError) as caught:
        parse(text, name)
    where, _, sentence = str(caught.value).partition(": ")
    assert where == str(PATH)
    assert "\n" not in sentence
    return sentence


def test_everything_that_may_be_said() -> None:
    """Keys, tables and defaults end where they belong."""
    config = parse(
        """
        backend = "python"
        target = "scorer:Scorer"
        max_batch_size = 8
        max_wait_ms = 2.5
        policy = "timed"
        idempotent = false

        [parameters]
        depth = 3
        names = ["a", "b"]

        [inputs.ids]
        dtype = "INT64"
        shape = [-1, 2]
        batch_axis = 0

        [inputs.flag]
        dtype = "BOOL"
        shape = []

        [outputs.score]
        dtype = "FP64"
        shape = [1]
        """
    )

    assert config == ModelConfig(
        "scorer",
        ModelSettings(
            backend="python",
            target="scorer:Scorer",
            max_batch_size=8,
            max_wait_ms=2.5,
            policy="timed",
            idempotent=False,
        ),
        Signature(
            (TensorSpec("ids", "INT64", (-1, 2)), TensorSpec("flag", "BOOL", ())),
            (TensorSpec("score", "FP64", (1,)),),
        ),
        {"depth": 3, "names": ["a", "b"]},
        version=1,
        source=str(PATH),
        folders=(PATH.parent,),
    )


def test_a_numpy_model_may_say_next_to_nothing() -> None:
    """The weights know the rest."""
    config = parse('backend = "numpy"')

    assert config.signature is None
    assert config.settings == ModelSettings(backend="numpy")


def test_a_target_is_enough_to_mean_python() -> None:
    """The backend need not be named then."""
    assert parse('target = "scorer:predict"' + TENSORS).settings.backend == "python"


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_on_the_wire_may_be_declared(dtype: str) -> None:
    """All twelve."""
    signature = parse('backend = "numpy"' + TENSORS.replace("FP32", dtype)).signature

    assert signature is not None
    assert (signature.inputs[0].dtype, signature.outputs[0].dtype) == (dtype, dtype)


NUMPY = 'backend = "numpy"\n'
PYTHON = 'backend = "python"\ntarget = "scorer:predict"\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("backend = ", "no valid TOML: Invalid value (at end of document)"),
        ("a = 1\na = 2", "no valid TOML: Cannot overwrite a value (at end of document)"),
        ("", "target is missing, backend 'python' expects module:callable; add for example: target"),
        ("max_batch_size = 8", "or say which backend but the default, python, runs it: numpy"),
        ('backend = "onxx"', "backend is 'onxx', expected one of: numpy, python"),
        ("backend = 3", "backend is 3, expected text in quotes"),
        ("backend = [1]", "backend is [1], expected text in quotes"),
        ('backend = "python"', "target is missing, backend 'python' expects module:callable"),
        (NUMPY + 'target = "a:b"', "target is 'a:b', backend 'numpy' takes none; remove it"),
        (NUMPY + "[parameters]\na = 1", "backend 'numpy' takes no [parameters]; remove the table"),
        (NUMPY + "max_batch_size = 0", "max_batch_size is 0, expected 1 to 65,536 rows"),
        (NUMPY + 'max_batch_size = "8"', "max_batch_size is '8', expected a whole number"),
        (NUMPY + "max_wait_ms = nan", "max_wait_ms is nan, expected 0 to 60,000 ms"),
        (NUMPY + "max_wait_ms = 1979-05-27", "max_wait_ms is datetime.date(1979, 5, 27), expected a number"),
        (NUMPY + 'policy = "eager"', "policy is 'eager', expected one of: adaptive, timed"),
        (NUMPY + "idempotent = 1", "idempotent is 1, expected true or false"),
        (NUMPY + "max_batchsize = 8", "key 'max_batchsize' is unknown"),
        (NUMPY + "max_batchsize = 8", "; did you mean 'max_batch_size'?"),
        (NUMPY + "[input.x]", "; did you mean 'inputs'?"),
        (NUMPY + "qqq = 1", "borrows_inputs, hedge, isolation, memory_mb, inputs, outputs, parameters; remove it"),
        (NUMPY + "parameters = 3", "parameters is 3, expected a table; write [parameters]"),
        (NUMPY + "inputs = 3", "inputs is 3, expected a table; write [inputs.NAME]"),
        (NUMPY + '[inputs]\nx = "FP32"', "inputs.x is 'FP32', expected a table; write [inputs.x]"),
        (NUMPY + '[inputs."a b"]', "inputs has a tensor named 'a b', expected"),
        (PYTHON, "[inputs.NAME] and [outputs.NAME] missing, expected both with backend 'python'; add each with its"),
        (PYTHON + TENSORS.partition("[outputs")[0], "[outputs.NAME] missing, expected both with backend 'python'; add"),
        (PYTHON + "[outputs" + TENSORS.partition("[outputs")[2], "[inputs.NAME] missing, expected both with backend"),
        (
            NUMPY + TENSORS.partition("[outputs")[0],
            "[outputs.NAME] missing, expected both or, with backend 'numpy', none",
        ),
    ],
)
def test_a_mistake_is_one_sentence(text: str, sentence: str) -> None:
    """File, key, value, what was expected, and what to do where that is not plain."""
    assert sentence in refused(text)


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        ("shape = [1]", "inputs.x.dtype is missing; add for example: dtype"),
        ('dtype = "FP32"', "inputs.x.shape is missing; add for example: shape"),
        ('dtype = "float32"\nshape = []', "inputs.x.dtype is 'float32', expected one of: BOOL, INT8,"),
        ('dtype = "float32"\nshape = []', "; write 'FP32'"),
        ('dtype = "fp32"\nshape = []', "; write 'FP32'"),
        ('dtype = "bool"\nshape = []', "; write 'BOOL'"),
        ('dtype = "BF16"\nshape = []', "dtype is 'BF16', reserved and not served by this version, expected"),
        (
            'dtype = "BYTES"\nshape = []',
            "dtype is 'BYTES', reserved and not served by this version, expected",
        ),
        ('dtype = "ANY"\nshape = []', "dtype is 'ANY', expected one of"),
        ("dtype = 32\nshape = []", "dtype is 32, expected one of"),
        ("dtype = [1]\nshape = []", "dtype is [1], expected one of"),
        ('dtype = "FP32"\nshape = 64', "inputs.x.shape is 64, expected a list of at most 8 lengths without"),
        ('dtype = "FP32"\nshape = [0]', "shape is [0], expected"),
        ('dtype = "FP32"\nshape = [-2]', "shape is [-2], expected"),
        ('dtype = "FP32"\nshape = [1.0]', "shape is [1.0], expected"),
        ('dtype = "FP32"\nshape = [true]', "shape is [True], expected"),
        ('dtype = "FP32"\nshape = ["n"]', "shape is ['n'], expected"),
        (f'dtype = "FP32"\nshape = [{MAX_ELEMENTS + 1}]', "each from 1 to 268,435,456, or -1 for any length"),
        (f'dtype = "FP32"\nshape = {[1] * 9}', "expected a list of at most 8 lengths"),
        ('dtype = "FP32"\nshape = []\nbatch_axis = 1', "inputs.x.batch_axis is 1, which comes with the repo"),
        (
            'dtype = "FP32"\nshape = []\nbatch_axis = "none"',
            "batch_axis is 'none', which comes with the repo",
        ),
        ('dtype = "FP32"\nshape = []\nbatch_axis = 2', "inputs.x.batch_axis is 2, expected 0; leave it out"),
        ('dtype = "FP32"\nshape = []\nbatch_axis = true', "batch_axis is True, expected 0"),
        ('dtype = "FP32"\nshape = []\nbatch_axis = false', "batch_axis is False, expected 0"),
        ('dtype = "FP32"\nshape = []\nbatch_axis = []', "batch_axis is [], expected 0"),
        ('type = "FP32"\nshape = []', "in [inputs.x] key 'type' is unknown"),
        ('type = "FP32"\nshape = []', "did you mean 'dtype'?"),
    ],
)
def test_a_mistake_in_a_tensor_is_one_sentence(tensor: str, sentence: str) -> None:
    """The key is named with its table, among inputs and outputs alike."""
    assert sentence in refused(f"{NUMPY}[inputs.x]\n{tensor}")
    assert sentence.replace("inputs", "outputs") in refused(f"{NUMPY}[outputs.x]\n{tensor}")


@pytest.mark.parametrize("backend", ["onnx", "torch", "pipeline", "parallel"])
def test_a_backend_to_come_is_said_to_come(backend: str) -> None:
    """The documentation knows it, this version does not."""
    assert refused(f'backend = "{backend}"') == (
        f"backend is '{backend}', which this version does not serve yet, expected one of: numpy, python"
    )


def test_the_number_of_tensors_is_bounded() -> None:
    """What could not travel is refused at the file."""
    many = "".join(f'[inputs.t{place}]\ndtype = "FP32"\nshape = []\n' for place in range(MAX_TENSORS + 1))

    assert refused(NUMPY + many) == "inputs has 17 tensors, expected at most 16"


@pytest.mark.parametrize("name", ["my model", "", "a" * 129, "über"])
def test_a_model_name_must_fit_on_the_wire(name: str) -> None:
    """A folder with another name is to be renamed."""
    assert "rename its folder" in refused('backend = "numpy"', name)


@given(text=st.text(max_size=200) | st.lists(st.sampled_from([*PYTHON, *TENSORS.split()])).map("\n".join))
def test_any_text_gives_a_model_or_a_config_error(text: str) -> None:
    """Nothing else is raised, whatever is in the file."""
    try:
        config = parse(text)
    except ConfigError:
        return
    assert config.name == "scorer"
