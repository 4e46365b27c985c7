"""A sheet draws what it is told, the same each time, and leaves the style of others alone."""

from __future__ import annotations

from matplotlib import rcParams

from minillm.book.canvas import COLOURS, Canvas, Picture

PNG = b"\x89PNG\r\n"


def sheet(text: str = "注意力") -> Picture:
    canvas = Canvas(4.0, 2.0)
    canvas.box(0.1, 0.1, 1.2, 0.5, text, COLOURS["sft"])
    canvas.cells(0.1, 0.9, list("张静住在"), fill=[0.1, 0.2, 0.3, 0.4])
    canvas.circle(3.0, 0.5, 0.2, "+", fill=0.2)
    canvas.line([(0.1, 1.6), (3.0, 1.6)])
    canvas.arrow((1.4, 0.35), (2.8, 0.5), bend=0.2)
    return canvas.picture("四个字")


def test_a_sheet_is_the_same_picture_each_time() -> None:
    first, again = sheet()._repr_png_(), sheet()._repr_png_()
    assert first == again
    assert first[0].startswith(PNG)
    assert first[1] == {"alt": "四个字"}
    assert sheet("别的字")._repr_png_() != first


def test_y_grows_downwards_and_inches_are_inches() -> None:
    canvas = Canvas(3.0, 2.0)
    canvas.text(1.0, 0.5, "上")
    canvas.text(1.0, 1.5, "下")
    figure = canvas.picture("").figure
    (axes,) = figure.axes
    upper, lower = (axes.transData.transform(text.get_position()) for text in axes.texts)
    assert upper[1] - lower[1] == figure.dpi
    assert upper[0] == figure.dpi


def test_the_style_stays_inside() -> None:
    before = dict(rcParams)
    sheet()._repr_png_()
    assert dict(rcParams) == before
