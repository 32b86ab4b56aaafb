"""The pages without a kernel in Chromium, from the disk and offline: pytest -m slow tests/browser."""

import keras
import numpy as np
import pytest

import kvae
from kvae.networks import dense_decoder, dense_encoder
from kvae.objectives import score

pytestmark = pytest.mark.slow
# The milliseconds that each frame's work takes.
TIMED = """window.times = [];
const request = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (draw) => request((now) => {
    const start = performance.now();
    draw(now);
    window.times.push(performance.now() - start);
});"""
SLIDE = """async () => {
    const slider = document.querySelector("input[type=range]");
    for (let i = 0; i < 120; i++) {
        slider.value = Number(slider.min) + ((slider.max - slider.min) * i) / 120;
        slider.dispatchEvent(new Event("input"));
        await new Promise((done) => setTimeout(done, 20));
    }
    return window.times.slice(20);
}"""
NAMELESS = """() => [...document.querySelectorAll("input, button, select, [tabindex], canvas[role]")].filter((each) =>
    each.checkVisibility() && !each.getAttribute("aria-label") && !each.getAttribute("aria-labelledby") &&
    !(each.labels?.length) && !(each.tagName === "BUTTON" && each.textContent.trim())
).map((each) => each.outerHTML)"""
PIXELS = "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data].join()"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder with both pages, the model, the images) of a dense VAE of 28x28 pixels."""
    keras.utils.set_random_seed(0)
    folder, rng = tmp_path_factory.mktemp("pages"), np.random.default_rng(0)
    x = np.kron(rng.random((30, 4, 4)) < 0.5, np.ones((7, 7)))[..., None].astype("float32")
    model = kvae.VAE(dense_encoder((28, 28, 1), 10), dense_decoder((28, 28, 1), 10), "bernoulli")
    kvae.widgets.explore(model, x).save(folder / "explorer.html")
    kvae.widgets.sketch(model, x).save(folder / "sketch.html")
    return folder, model, x


@pytest.fixture
def visit(saved, browser):
    """visit(name, **settings) opens a page offline. The test fails by an error in it or a request for more."""
    errors, requests = [], []

    def visit(name, **settings):
        page = browser.new_context(offline=True, **settings).new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: requests.append(request.url))
        page.add_init_script(TIMED)
        page.goto((saved[0] / f"{name}.html").as_uri())
        page.wait_for_function("() => window.times?.length > 0")
        return page

    yield visit
    for context in browser.contexts:
        context.close()
    assert not errors
    assert all(url.startswith("file://") and url.endswith(".html") for url in requests), requests


def settle(page):
    page.evaluate("() => new Promise((done) => setTimeout(done, 150))")


def codes(page):
    return dict(zip(*(page.locator(f"#sliders {part}").all_inner_texts() for part in ("label", "output")), strict=True))


def test_a_frame_takes_16_ms_at_most(visit):
    times = visit("explorer").evaluate(SLIDE)
    print(f"ms a frame: median {np.median(times):.2f}, 95 % {np.quantile(times, 0.95):.2f}, of {len(times)}")
    assert len(times) >= 50 and np.median(times) <= 16


def test_sliders_and_plane_work_by_keyboard_and_mouse(visit):
    page = visit("explorer")
    image, plane, before = page.locator("#image"), page.locator("#plane"), codes(page)
    pixels = image.evaluate(PIXELS)
    page.locator("input[type=range]").first.focus()
    page.keyboard.press("ArrowRight")
    settle(page)
    after = codes(page)
    assert [a != b for a, b in zip(before.values(), after.values(), strict=True)] == [True] + [False] * 9
    assert image.evaluate(PIXELS) != pixels
    value = page.locator("input[type=range]").first.get_attribute("aria-valuetext")
    assert value == next(iter(after.values())) and value in image.get_attribute("aria-label")
    plane.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowLeft")
    settle(page)
    moved = codes(page)
    assert [a != b for a, b in zip(after.values(), moved.values(), strict=True)] == [True] * 2 + [False] * 8
    page.wait_for_function("() => document.getElementById('said').textContent.includes('z')")
    plane.click(position={"x": 200, "y": 80})
    settle(page)
    clicked = codes(page)
    assert sum(a != b for a, b in zip(moved.values(), clicked.values(), strict=True)) == 2
    page.get_by_label("upwards").select_option(label=next(iter(before)).split("\n")[0].strip())
    for button in ("An image's code", "A random code", "The middle"):
        pixels = image.evaluate(PIXELS)
        page.get_by_role("button", name=button).click()
        settle(page)
        assert image.evaluate(PIXELS) != pixels, button


def test_a_drawing_is_encoded_decoded_and_scored(visit, saved):
    _, model, x = saved
    page = visit("sketch")
    numbers = {name: page.locator(f"#{name}") for name in ("loss", "kl", "elbo")}

    def shown():
        settle(page)
        texts = {name: cell.inner_text().replace("\u2212", "-") for name, cell in numbers.items()}
        return {name: float(text) for name, text in texts.items()} | {"rows": page.locator("#rows").inner_text()}

    page.get_by_role("button", name="z = μ").click()
    found, drawn = shown(), score(model, x[:1], model.posterior(x[:1]), np.zeros((1, 1, 10), "float32"))
    for name, expected in (("loss", drawn.reconstruction_loss), ("kl", drawn.kl_loss), ("elbo", drawn.elbo)):
        assert found[name] == pytest.approx(float(expected[0]), rel=1e-2), name
    page.get_by_role("button", name="Draw z anew").click()
    anew = shown()
    assert anew["loss"] != found["loss"] and anew["kl"] == found["kl"]
    page.get_by_role("button", name="Clear").click()
    cleared = shown()
    box = page.locator("#x").bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 160, steps=5)
    page.mouse.up()
    stroke = shown()
    assert stroke["rows"] != cleared["rows"]
    on = page.locator("#x").evaluate(
        "c => c.getContext('2d').getImageData(0, 0, 28, 28).data.filter((v, i) => i % 4 === 0 && v > 127).length"
    )
    assert 15 < on < 150
    page.locator("#x").focus()
    for key in ("ArrowDown", "ArrowDown", "Space"):
        page.keyboard.press(key)
    painted = shown()
    assert painted["rows"] != stroke["rows"] and "row 17" in page.locator("#x").get_attribute("aria-label")
    page.get_by_role("button", name="Image 2").click()
    assert shown()["rows"] != painted["rows"]


@pytest.mark.parametrize("name", ["explorer", "sketch"])
def test_it_fits_a_phone_has_names_for_screen_readers_and_follows_the_color_scheme(visit, name, tmp_path):
    grounds = {}
    for scheme in ("light", "dark"):
        for width in (390, 1200):
            page = visit(name, color_scheme=scheme, viewport={"width": width, "height": 900})
            assert page.evaluate("() => document.documentElement.scrollWidth") <= width
            assert page.evaluate(NAMELESS) == []
            grounds[scheme] = page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
            page.screenshot(path=tmp_path / f"{name}-{scheme}-{width}.png", full_page=True)
    assert grounds["light"] == "rgb(255, 255, 255)" and grounds["dark"] == "rgb(22, 24, 29)"
    assert page.get_by_role("heading", level=1).count() == 1
