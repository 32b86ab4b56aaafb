"""The notebooks in JupyterLab, in a browser: pytest -m slow tests/browser (it needs playwright and Chromium)."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import harness
import nbformat
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed: the browser extra has it")

NOTEBOOKS = pathlib.Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.name for number in ("01", "07") for path in NOTEBOOKS.glob(f"{number}_*.ipynb"))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MINUTES = 10
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]
READY = """async () => {
    await window.jupyterapp.restored;
    const panel = window.jupyterapp.shell.currentWidget;
    const kernel = panel?.sessionContext?.session?.kernel;
    return kernel?.status === 'idle' && kernel.connectionStatus === 'connected';
}"""
CELLS = "() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.toJSON().cells"
# Pixels rather than addresses, which change whatever is shown.
PIXELS = """image => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext('2d').drawImage(image, 0, 0);
    return canvas.toDataURL();
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab on loopback, of settings of its own, in a folder with copies of the notebooks."""
    home = tmp_path_factory.mktemp("lab")
    work = home / "work"
    work.mkdir()
    for name in NAMES:
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        for cell in notebook.cells:
            cell.source = harness.tested(cell)  # in its quick form
        nbformat.write(notebook, work / name)
    config = home / "config" / "labconfig"
    config.mkdir(parents=True)
    announcements = {"@jupyterlab/apputils-extension:announcements": True}  # which ask a host on the network
    (config / "page_config.json").write_text(json.dumps({"disabledExtensions": announcements}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {name: str(home / name) for name in ("runtime", "settings", "workspaces", "ipython")}
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(config.parent),
        "JUPYTER_RUNTIME_DIR": folders["runtime"],
        "JUPYTERLAB_SETTINGS_DIR": folders["settings"],
        "JUPYTERLAB_WORKSPACES_DIR": folders["workspaces"],
        "IPYTHONDIR": folders["ipython"],
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this Python
        "KVAE_QUICK": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--IdentityProvider.token=", f"--ServerApp.root_dir={work}", "--LabApp.expose_app_in_browser=True"]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=work)
    address = f"http://127.0.0.1:{port}"
    try:
        wait(lambda: answers(address, server), 60, lambda: (home / "log").read_text())
        yield address
    finally:
        server.terminate()
        server.wait(30)


def answers(address, server):
    assert server.poll() is None, "JupyterLab ended"
    try:
        return urllib.request.urlopen(f"{address}/api", timeout=5).status == 200
    except OSError:
        return False


def wait(condition, seconds, said=lambda: ""):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, said()
        time.sleep(0.5)


@pytest.fixture
def page(lab):
    """A page that fails the test by an error of its own or a request to another host."""
    errors, elsewhere = [], []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: elsewhere.append(request.url) if leaves(request.url, lab) else None)
        yield page
        browser.close()
    assert not errors
    assert not elsewhere


def leaves(url, lab):
    return not url.startswith((lab, lab.replace("http", "ws"), "data:", "blob:"))


@pytest.mark.parametrize("name", NAMES)
def test_all_cells_run_and_a_slider_moves_the_picture(lab, page, name):
    page.goto(f"{lab}/lab/tree/{name}?reset")
    page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.content?.model")
    wait(lambda: page.evaluate(READY), 120)  # a dialog asks for a kernel otherwise
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs'); }")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")

    def code():
        return [cell for cell in page.evaluate(CELLS) if cell["cell_type"] == "code"]

    wait(lambda: failed(code()) or all(cell["execution_count"] for cell in code()), 60 * MINUTES)
    wait(lambda: page.evaluate(READY), 60)
    assert not failed(code())
    assert sum(bool(cell["outputs"]) for cell in code()) > len(code()) / 2
    if "".join(code()[0]["source"]) == harness.SETUP:
        assert not any(output.get("name") == "stderr" for cell in code() for output in cell["outputs"])

    explorer = [number for number, cell in enumerate(page.evaluate(CELLS)) if "explore(" in "".join(cell["source"])]
    page.evaluate("number => window.jupyterapp.shell.currentWidget.content.scrollToItem(number, 'center')", explorer[0])
    image, slider = page.locator(".widget-image").first, page.locator(".widget-slider .noUi-handle").first
    slider.wait_for(timeout=30_000)
    before = image.evaluate(PIXELS)
    slider.focus()
    for _ in range(200):
        page.keyboard.press("ArrowRight")
    wait(lambda: image.evaluate(PIXELS) != before, 30)

    plane, values = page.locator(".kvae-plane").first, page.locator(".widget-slider .widget-readout")
    moved, numbers = image.evaluate(PIXELS), values.all_inner_texts()
    plane.click(position={"x": 200, "y": 80})
    wait(lambda: image.evaluate(PIXELS) != moved, 30)
    wait(lambda: sum(a != b for a, b in zip(values.all_inner_texts(), numbers, strict=True)) in (1, 2), 30)


def failed(cells):
    return [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
