"""The notebooks in JupyterLab, in a browser: pytest -m slow tests/browser (it needs playwright and Chromium)."""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import harness
import nbformat
import pytest

NOTEBOOKS = pathlib.Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
EXECUTED = [name for name in NAMES if name[:2] == "01"]
MINUTES = 10
pytestmark = pytest.mark.slow
READY = """async () => {
    await window.jupyterapp.restored;
    const panel = window.jupyterapp.shell.currentWidget;
    const kernel = panel?.sessionContext?.session?.kernel;
    return kernel?.status === 'idle' && kernel.connectionStatus === 'connected';
}"""
CELLS = "() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.toJSON().cells"
# The words of the rendered texts outside of code.
WORDS = """() => [...document.querySelectorAll('.jp-RenderedMarkdown')].map((text) => {
    const copy = text.cloneNode(true);
    copy.querySelectorAll('pre, code').forEach((code) => code.remove());
    return copy.textContent;
}).join('\\n')"""
PICTURES = """() => [...document.querySelectorAll('.jp-OutputArea-output img')].map((image) => ({
    alt: image.alt, width: image.naturalWidth, ground: getComputedStyle(image).backgroundColor,
    shown: image.getBoundingClientRect().width,
}))"""
# Pixels rather than addresses, which change whatever is shown.
PIXELS = """image => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext('2d').drawImage(image, 0, 0);
    return canvas.toDataURL();
}"""
THEME = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
# Which ask a host on the network; and all cells are drawn, not those alone that the window shows.
SETTINGS = {"@jupyterlab/apputils-extension:announcements": True}
TRACKER = {"windowingMode": "none"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab on loopback, of settings of its own, in a folder with copies of the notebooks.

    The folder `quick` has those that are executed, in their quick form.
    """
    home = tmp_path_factory.mktemp("lab")
    work = home / "work"
    (work / "quick").mkdir(parents=True)
    for name in NAMES:
        shutil.copy2(NOTEBOOKS / name, work)
    for name in EXECUTED:
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        for cell in notebook.cells:
            cell.source = harness.tested(cell)
        nbformat.write(notebook, work / "quick" / name)
    config, settings = home / "config" / "labconfig", home / "settings" / "@jupyterlab" / "notebook-extension"
    for folder, name, content in (
        (config, "page_config.json", {"disabledExtensions": SETTINGS}),
        (settings, "tracker.jupyterlab-settings", TRACKER),
    ):
        folder.mkdir(parents=True)
        (folder / name).write_text(json.dumps(content))
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
    }
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # the notebooks set it
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
def page(lab, browser):
    """A page that fails the test by an error of its own or a request to another host."""
    errors, elsewhere = [], []
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: elsewhere.append(request.url) if leaves(request.url, lab) else None)
    yield page
    page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
    page.close()
    assert not errors
    assert not elsewhere


def leaves(url, lab):
    return not url.startswith((lab, lab.replace("http", "ws"), "data:", "blob:"))


def opened(page, lab, name):
    page.goto(f"{lab}/lab/tree/{name}?reset")
    page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.content?.model")
    wait(lambda: page.evaluate(READY), 120)  # a dialog asks for a kernel otherwise


def stderr(page):
    return page.locator('[data-mime-type="application/vnd.jupyter.stderr"]').all_inner_texts()


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_with_its_pictures_in_words_too_and_its_solutions_folded(lab, page, name, tmp_path):
    cells = nbformat.read(NOTEBOOKS / name, as_version=4).cells
    outputs = [(cell, output) for cell in cells for output in cell.get("outputs", [])]
    alts = [cell.metadata["alt"] for cell, output in outputs if "image/png" in output.get("data", {})]
    opened(page, lab, name)
    wait(lambda: len(page.evaluate(PICTURES)) >= len(alts), 60)
    pictures = page.evaluate(PICTURES)
    assert [picture["alt"] for picture in pictures] == alts
    assert all(picture["width"] > 100 and picture["shown"] > 100 for picture in pictures), pictures
    for alt in set(alts):  # as a screen reader finds it
        assert page.get_by_role("img", name=alt, exact=True).count() == alts.count(alt)
    assert stderr(page) == []

    texts = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    wait(lambda: page.locator("mjx-container").count() or "$" not in texts, 60)
    words = page.evaluate(WORDS)
    assert not re.findall(r"</?[a-z]+[ >/]|\$\$|&[a-z]+;", words)
    details = page.locator(".jp-RenderedMarkdown details")
    assert details.count() == texts.count("<details>")
    assert not any(details.nth(i).get_attribute("open") is not None for i in range(details.count()))
    if details.count():
        details.first.locator("summary").click()
        assert details.first.locator("pre, p").first.is_visible()
    assert page.locator(".jp-InputPlaceholder").count() == 1  # of the setup
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        page.evaluate(THEME, theme)
        page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=theme)
        # A theme that comes while the splash still fades makes JupyterLab remove that twice, an error of its own.
        page.wait_for_function("() => !document.getElementById('jupyterlab-splash')")
        assert {picture["ground"] for picture in page.evaluate(PICTURES)} == {"rgb(255, 255, 255)"}
        if folder := os.environ.get("KVAE_SCREENSHOTS"):
            photograph(page, pathlib.Path(folder) / f"{name[:2]}-{theme[11:].lower()}.png")


def photograph(page, path):
    page.set_viewport_size({"width": 1200, "height": 1000})
    page.evaluate("() => { document.querySelector('.jp-WindowedPanel-outer').scrollTop = 0; }")
    height = page.evaluate("() => document.querySelector('.jp-WindowedPanel-outer').scrollHeight")
    page.set_viewport_size({"width": 1200, "height": min(height + 120, 16_000)})
    page.wait_for_timeout(500)
    page.screenshot(path=path)
    page.set_viewport_size({"width": 1400, "height": 1000})


@pytest.mark.parametrize("name", EXECUTED)
def test_all_cells_run_and_a_slider_moves_the_picture(lab, page, name):
    opened(page, lab, f"quick/{name}")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs'); }")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")

    def code():
        return [cell for cell in page.evaluate(CELLS) if cell["cell_type"] == "code"]

    wait(lambda: failed(code()) or all(cell["execution_count"] for cell in code()), 60 * MINUTES)
    wait(lambda: page.evaluate(READY), 60)
    assert not failed(code())
    assert sum(bool(cell["outputs"]) for cell in code()) > len(code()) / 2
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
