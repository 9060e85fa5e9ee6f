"""An extract in: text in every column, faults by line and column, never a quoted row."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from linkage.agency import extract
from linkage.agency.extract import BadExtract, UnreadableExtract
from linkage.agency.mapping import Source


def a_csv(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "pupils.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a,b\n1,2\nSecret\n3,4\n", "pupils.csv, line 3: it has 1 columns where the header has 2"),
        (b"a,b\n1,2\nSecret,3,4\n", "pupils.csv, line 3: it has 3 columns"),
        (b'a,b\n"x\ny",2\nSecret\n', "pupils.csv, line 4: it has 1 columns"),
        (b'a,b\n1,2\n"Secret,4\n', "pupils.csv, line 3: a quoted value has no end"),
        (b"a,b\n1,2\nSecret\xff,3\n", "pupils.csv, line 3: it is not UTF-8"),
        (b"a,b\xff\n1,2\n", "pupils.csv, line 1: the header can't be read"),
        (b"a,a\n1,2\n", "pupils.csv, line 1: two columns have the same name"),
        (b"", "pupils.csv: it is empty"),
    ],
)
def test_a_bad_csv_is_refused_with_its_line_and_never_a_quoted_row(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(BadExtract) as caught:
        extract.read(a_csv(tmp_path, content))
    assert told in str(caught.value)
    assert "Secret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_every_column_of_a_csv_is_text_and_blanks_are_missing(tmp_path: Path) -> None:
    table = extract.read(a_csv(tmp_path, b'\xef\xbb\xbfid,when,what\n007,2020-01-02,"a,\nb"\n1e3,,NA\n'))
    assert table.to_pylist() == [
        {"id": "007", "when": "2020-01-02", "what": "a,\nb"},
        {"id": "1e3", "when": None, "what": "NA"},
    ]


def test_a_formula_is_text_like_any_other(tmp_path: Path) -> None:
    source = Source(key="persons", file=a_csv(tmp_path, b"id\n=1+1\n@SUM(A1)\n"), columns={"local_id": "id"})
    assert extract.fields(source).to_pydict() == {"local_id": ["=1+1", "@SUM(A1)"]}


def test_values_are_trimmed_and_translated(tmp_path: Path) -> None:
    path = a_csv(tmp_path, b"id,s\n 1 , Y \n2,\n3,N\n")
    source = Source(
        key="persons", file=path, columns={"local_id": "id", "shield": "s"}, values={"shield": {"Y": "address"}}
    )
    assert extract.fields(source).to_pydict() == {"local_id": ["1", "2", "3"], "shield": ["address", None, "N"]}


def test_typed_parquet_is_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "pupils.parquet"
    pq.write_table(
        pa.table({"id": [1, 2], "dob": [date(2015, 3, 14), None], "s": pa.array(["x", "y"]).dictionary_encode()}), path
    )
    source = Source(
        key="persons",
        file=path,
        columns={"local_id": "id", "date_of_birth": "dob", "sex": "s"},
        formats={"date_of_birth": "%d/%m/%Y"},
    )
    assert extract.fields(source).to_pylist() == [
        {"local_id": "1", "date_of_birth": "14/03/2015", "sex": "x"}, {"local_id": "2", "date_of_birth": None, "sex": "y"},
    ]  # fmt: skip


def test_nested_parquet_and_what_is_not_parquet_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pupils.parquet"
    pq.write_table(pa.table({"id": [[1], [2]]}), path)
    with pytest.raises(BadExtract, match="column 'id': a column of plain values is due"):
        extract.fields(Source(key="persons", file=path, columns={"local_id": "id"}))
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(BadExtract, match="can't be read as"):
        extract.read(path)


def test_a_file_that_is_not_there_proves_nothing(tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(UnreadableExtract):
            extract.read(tmp_path / name)
    with pytest.raises(BadExtract, match=r"a \.csv or a \.parquet file is due"):
        extract.read(tmp_path / "pupils.xlsx")


def test_an_empty_file_is_refused_unless_it_may_be_empty(tmp_path: Path) -> None:
    path = a_csv(tmp_path, b"id\n")
    with pytest.raises(BadExtract, match="would withdraw every record"):
        extract.fields(Source(key="persons", file=path, columns={"local_id": "id"}))
    assert extract.fields(Source(key="x", file=path, columns={"local_id": "id"}, may_be_empty=True)).num_rows == 0
