"""Finding and loading models."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from zmqinfer.backends.base import Backend
from zmqinfer.config import ModelSettings
from zmqinfer.errors import ConfigError
from zmqinfer.node.models import (
    check_target,
    find_models,
    function_model,
    load_here,
    load_model,
    target_config,
)
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import Array
from zmqinfer.zoo import ZOO

TOML = """
target = "model:predict"
[inputs.x]
dtype = "FP32"
shape = [2]
[outputs.y]
dtype = "FP32"
shape = [2]
"""


def add(repository: Path, name: str, *versions: str, toml: str = TOML) -> Path:
    folder = repository / name
    for place in (folder, *(folder / version for version in versions)):
        place.mkdir(parents=True, exist_ok=True)
        (place / "model.py").write_text(f"def predict(batch): return {{'y': {place.name!r}}}")
    (folder / "model.toml").write_text(toml)
    return folder


def refused(*folders: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        find_models(folders)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def answer(backend: Backend) -> object:
    return backend.infer({"x": np.zeros((1, 2), np.float32)})["y"]


def test_models_are_found_in_order_of_their_names(tmp_path: Path) -> None:
    """From several repositories; folders without a model.toml and files are passed over."""
    one, two = tmp_path / "one", tmp_path / "two"
    add(one, "c")
    add(one, "a")
    add(two, "b")
    (one / "notes").mkdir()
    (one / "README.md").write_text("")

    found = find_models([two, one])

    assert [config.name for config in found] == ["a", "b", "c"]
    assert found[0].source == str(one / "a" / "model.toml")
    assert (found[0].version, found[0].folders) == (1, (one / "a",))


def test_a_mark_of_the_encoding_is_no_part_of_the_file(tmp_path: Path) -> None:
    """Some editors begin a file with one."""
    add(tmp_path, "a", toml="\N{ZERO WIDTH NO-BREAK SPACE}" + TOML)

    (config,) = find_models([tmp_path])

    assert config.settings.target == "model:predict"


def test_the_highest_numbered_folder_is_served(tmp_path: Path) -> None:
    """10 is higher than 9, and its files come before those beside model.toml."""
    folder = add(tmp_path, "scorer", "9", "10", "draft")

    (config,) = find_models([tmp_path])

    assert (config.version, config.folders) == (10, (folder / "10", folder))
    assert answer(load_here(config)) == "10"


def test_a_model_folder_may_be_named_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--models scorer` serves that one; from within, "." has the folder's own name."""
    folder = add(tmp_path, "scorer")
    add(tmp_path, "other")
    monkeypatch.chdir(folder)

    assert [config.name for config in find_models([folder])] == ["scorer"]
    assert [config.name for config in find_models([Path()])] == ["scorer"]
    assert [config.name for config in find_models([Path("..")])] == ["other", "scorer"]


def test_a_linked_folder_has_the_name_of_the_link(tmp_path: Path) -> None:
    """`current -> scorer-7` is a model called current."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "current").symlink_to(add(tmp_path / "builds", "scorer-7"))

    assert [config.name for config in find_models([tmp_path / "models"])] == ["current"]


def test_a_repository_without_models_is_refused(tmp_path: Path) -> None:
    """Missing, a file, empty: the path, what was expected, what to do."""
    (tmp_path / "file").write_text("")

    assert "missing does not exist, expected a folder of model folders" in refused(tmp_path / "missing")
    assert "file is no folder, expected a folder of model folders" in refused(tmp_path / "file")
    assert f"{tmp_path} holds no model, expected at least one {tmp_path}/NAME/model.toml" in refused(tmp_path)


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    """Both files are named."""
    one, two = add(tmp_path / "one", "scorer"), add(tmp_path / "two", "scorer")

    assert refused(one.parent, two.parent) == (
        f"model 'scorer' is in {one}/model.toml and in {two}/model.toml, expected one of each name; rename one folder"
    )


def test_one_wrong_file_is_named(tmp_path: Path) -> None:
    """Among good ones."""
    add(tmp_path, "good")
    bad = add(tmp_path, "worse", toml="max_batch_size = 0" + TOML)

    assert refused(tmp_path) == f"{bad}/model.toml: max_batch_size is 0, expected 1 to 65,536 rows"


@pytest.mark.parametrize("number", ["0", "01", "1234567890"])
def test_a_version_folder_with_an_odd_number_is_refused(tmp_path: Path, number: str) -> None:
    """It would otherwise be passed over in silence, or be served as another number."""
    folder = add(tmp_path, "scorer", "2", number)

    assert f"version folder {folder / number} is no number from 1 to 999999999" in refused(tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """UTF-8 is what TOML is written in."""
    folder = add(tmp_path, "scorer")
    (folder / "model.toml").write_bytes(b'target = "\xff:b"')

    assert f"{folder}/model.toml cannot be read" in refused(tmp_path)


def test_a_model_that_cannot_be_loaded_is_a_config_error(tmp_path: Path) -> None:
    """With its model.toml."""
    folder = add(tmp_path, "scorer", toml=TOML.replace("model:predict", "model:score"))

    (config,) = find_models([tmp_path])
    with pytest.raises(ConfigError, match=rf"^{folder}/model\.toml: target is 'model:score', but .* has no 'score'"):
        load_model(config)


def test_the_shipped_models_load_and_answer() -> None:
    """digits, echo and sleep, as the zoo's map says."""
    configs = {config.name: config for config in find_models([ZOO])}
    models = {name: load_here(config) for name, config in configs.items()}

    assert sorted(models) == ["digits", "echo", "sleep"]
    assert (configs["digits"].version, configs["digits"].settings.backend) == (1, "numpy")
    assert models["digits"].signature == Signature(
        (TensorSpec("pixels", "FP32", (64,)),), (TensorSpec("logits", "FP32", (10,)),)
    )
    x = np.ones((3, 5), np.float32)
    for name in ("echo", "sleep"):
        assert models[name].signature == Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1,)),))
    assert models["echo"].infer({"x": x})["y"] is x
    assert models["digits"].infer({"pixels": np.ones((3, 64), np.float32)})["logits"].shape == (3, 10)
    for model in models.values():
        model.close()


def predict(x: Array) -> Array:
    return x * 2


def test_a_function_is_a_model() -> None:
    """Named after it, version 1, with the default settings or the caller's."""
    model = function_model(predict)
    other = function_model(predict, ModelSettings(max_batch_size=4))

    assert (model.name, model.config.version, model.config.settings) == ("predict", 1, ModelSettings())
    assert model.backend.signature == Signature((TensorSpec("x"),), (TensorSpec("y"),))
    assert other.config.settings.max_batch_size == 4
    model.finish()
    other.finish()


@pytest.fixture
def scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current directory, not yet imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "zscorer", raising=False)
    (tmp_path / "zscorer.py").write_text(
        dedent(
            """
            class Model:
                def infer(self, batch): return batch
                def score(self, x): return x
            class Bad:
                def __init__(self, by): pass
            number = 3
            model = Model()
            def predict(x): return x
            """
        )
    )
    return "zscorer"


@pytest.mark.parametrize(
    "name", ["model.tml", "Model.toml", "models.toml", "modle.toml", "model.toml.txt", "MODEL.TOML", "model_toml"]
)
def test_a_misspelt_file_is_said(tmp_path: Path, name: str) -> None:
    """Else its model is missing, and nobody knows why; in a repository, and in a folder that is named itself."""
    add(tmp_path, "good")
    folder = add(tmp_path, "scorer")
    (folder / "model.toml").rename(folder / name)
    sentence = f"{folder} has {name} and no model.toml, expected that; rename the file, or put it elsewhere"

    assert refused(tmp_path) == sentence
    assert refused(folder) == sentence


@pytest.mark.parametrize("name", ["model.toml.off", "model.toml.bak", "model.toml~", ".model.toml.swp", "model.py"])
def test_other_files_are_no_slips(tmp_path: Path, name: str) -> None:
    """What was put aside on purpose, or by an editor, is passed over as before."""
    add(tmp_path, "good")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / name).write_text("")

    assert [config.name for config in find_models([tmp_path])] == ["good"]


def test_mistakes_of_single_folders_may_be_told_instead_of_raised(tmp_path: Path) -> None:
    """The others are found; what is wrong with the whole is raised as before."""
    add(tmp_path, "good")
    add(tmp_path, "worse", toml="max_batch_size = 0" + TOML)
    add(tmp_path, "worst", "01")
    told: list[str] = []

    found = find_models([tmp_path], lambda mistake: told.append(str(mistake)))

    assert [config.name for config in found] == ["good"]
    assert sorted("worse/model.toml: max_batch_size" in sentence for sentence in told) == [False, True]
    assert sorted("worst/01 is no number" in sentence for sentence in told) == [False, True]
    with pytest.raises(ConfigError, match="does not exist"):
        find_models([tmp_path, tmp_path / "nowhere"], lambda mistake: None)


def test_a_target_in_the_current_directory_comes_first(scorer: str, tmp_path: Path) -> None:
    """Before anything else on sys.path that has the same name."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "zscorer.py").write_text("")
    sys.path[:0] = [str(other), str(tmp_path)]

    models = [load_model(target_config(f"{scorer}:{target}", ModelSettings())) for target in ("predict", "model.score")]

    assert [model.name for model in models] == ["predict", "score"]
    assert sys.path[0] == str(tmp_path)
    for model in models:
        model.finish()


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("zscorer", "target is 'zscorer', expected module:callable"),
        ("zscorer.py:predict", "target is 'zscorer.py:predict', but no module 'zscorer.py' is in sys.path"),
        ("zscorer:score", "zscorer.py has no 'score'; define it"),
        ("zscorer:number", "target 'zscorer:number' is a int, expected a function or a class with infer(batch)"),
        ("zscorer:Bad", "target 'zscorer:Bad' raised while loading: TypeError: "),
    ],
)
def test_a_target_that_is_no_function_is_refused(scorer: str, target: str, sentence: str) -> None:
    """In the words that the command line will print."""
    with pytest.raises(ConfigError) as caught:
        load_model(target_config(target, ModelSettings()))
    assert sentence in str(caught.value)


def test_a_target_is_looked_for_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its first name: to know what is in a package, Python would import that."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zraises.py").write_text("raise SystemExit('imported')")
    (tmp_path / "zpackage").mkdir()

    for target in ("zraises:predict", "zpackage.inner:predict", "json.decoder:scan", "__main__:predict"):
        check_target(target)
    with pytest.raises(ConfigError, match=r"no module 'znowhere\.inner' is in sys\.path"):
        check_target("znowhere.inner:predict")
    with pytest.raises(ConfigError, match="target is 'zraises', expected module:callable"):
        check_target("zraises")


def test_a_model_lives_on_one_thread(tmp_path: Path) -> None:
    """What its module opens when it is imported, and its class when it is loaded, belongs to that thread."""
    folder = add(tmp_path, "bound", toml=TOML.replace("model:predict", "model:Model"))
    (folder / "model.py").write_text(
        dedent(
            f"""
            import threading
            def note():
                with open({str(tmp_path / "seen")!r}, "a") as file: print(threading.get_ident(), file=file)
            note()
            class Model:
                def __init__(self): note()
                def load(self): note()
                def infer(self, batch): return batch
                def close(self): note()
            """
        )
    )
    (config,) = find_models([tmp_path])

    model = load_model(config)
    model.finish()
    model.join(10)

    assert (tmp_path / "seen").read_text().split() == [str(model.ident)] * 4
