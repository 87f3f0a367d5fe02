import ast

import numpy as np
import pytest

from zcat.errors import BadContent, NotReadable
from zcat.model.dtypes import dtype_text, parse_dtype

OFFERED = [
    *("|b1", "|i1", "<u2", "<i4", ">i8", "<f2", "<f4", ">f8", "<c8", "<c16"),
    *("|S3", "<U7", "|V5", "|S300", "<M8[ns]", "<m8[25s]", ">M8[D]"),
    "[('a', '<i4'), ('b', '|S3')]",
    "[('a', [('x', '<f4', (2,)), ('y', '|S3')]), ('b', '<M8[s]')]",
]


@pytest.mark.parametrize("text", OFFERED)
def test_an_offered_dtype_is_written_as_it_was_read(text):
    assert dtype_text(parse_dtype(text)) == text


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype([("a", "i1"), ("b", "f8")], align=True),
        np.dtype({"names": ["b", "a"], "formats": ["i4", "i2"], "offsets": [4, 0]}),
    ],
)
def test_padding_and_order_of_fields_survive(dtype):
    assert parse_dtype(dtype_text(dtype)) == dtype
    assert np.dtype(ast.literal_eval(dtype_text(dtype))) == dtype


def test_python_blosc2s_spelling_of_structured_types_is_read():
    assert dtype_text(parse_dtype("[('a', 'i1'), ('b', 'S3')]")) == "[('a', '|i1'), ('b', '|S3')]"


@pytest.mark.parametrize(
    "text", ["|O8", "O", "object", "[('a', 'O')]", "[('a', [('b', '|O8')])]", "<M8", "m8", "S0", "U", "V", "<f16"]
)
def test_what_has_no_fixed_form_is_not_offered(text):
    with pytest.raises(NotReadable):
        parse_dtype(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "nonsense", "f4,i4", "S99999999999", "S-1", "<f4\0", "(3,)f4", "<f4; 1", "__import__('os')"),
        *("[", "[" * 1000, "{" * 90 + "1:1" + "}" * 90, "[1]", "[('a',)]", "{}", "[" + "-" * 15000 + "1]"),
        *("[__import__('os').getpid()]", "[('a', '<f4', (10**9,))]", "x" * 20000, "[('a', 'i4'), ('a', 'i4')]"),
        "{'names': ['a'], 'formats': ['i4'], 'offsets': [-4]}",
    ],
)
def test_what_is_no_dtype_is_refused_quietly(text):
    with pytest.raises((BadContent, NotReadable)):
        parse_dtype(text)
