"""Block and score on Spark: past one machine, by the same levels, weights and pairs as in DuckDB.

The SQL is written for Spark from the comparisons that DuckDB has (`comparisons(profile, "spark")`); bands, rules and
clusters stay where they are.  Rows go to Spark from memory, pairs come back to memory, and the workers run no Python.

What touches a disk: shuffles and whatever does not fit the memory, in `spark.local.dir`, encrypted by Spark (AES, 256
bits) under a key that its driver makes and never writes.  A local session's folder is private to this user, lies in
/dev/shm where there is one, and goes when the session does; the environment variable SPARK_LOCAL_DIRS would move it,
still encrypted.  No table is written, no event log kept, no page served; a local session listens on the loopback alone,
and its Java process ends with it.
"""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from linkage.matching.blocking import APART, blocking_columns
from linkage.matching.link import SCORED
from linkage.matching.model import Model
from linkage.matching.scoring import columns_compared, scored

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MEMORY_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - a folder in memory, in which a private one is made
SEALED: Final[Mapping[str, str]] = {
    "spark.io.encryption.enabled": "true",  # without it, PySpark hands rows to the JVM through a file in clear
    "spark.io.encryption.keySizeBits": "256",
    "spark.authenticate": "true",
    "spark.network.crypto.enabled": "true",
    "spark.ui.enabled": "false",
    "spark.eventLog.enabled": "false",
}
"""Not to be overridden: on every disk and every wire encodings are encrypted."""


class SparkUnavailable(RuntimeError):
    """Spark can't run here; the message says what to install."""


class SparkFailed(RuntimeError):
    """Spark stopped in the middle; the message holds its error's kind and no value."""


def missing() -> str | None:
    """What has to be installed before Spark runs here, in a sentence; None if nothing."""
    if importlib.util.find_spec("pyspark") is None:
        return 'PySpark is not installed: pip install "safeguarding-broker[spark]"'
    home = os.environ.get("JAVA_HOME")
    if not (shutil.which("java") or (home and (Path(home) / "bin" / "java").exists())):
        return "no Java is installed: Spark needs Java 17 or later, in PATH or JAVA_HOME"
    return None


@dataclass(frozen=True, slots=True)
class SparkEngine:
    """Blocks and scores in one Spark session: an `Engine` for `link`."""

    session: SparkSession

    def __call__(self, rows: pa.Table, model: Model) -> pa.Table:
        """The SCORED pairs of `rows`, in order.  Raises SparkFailed."""
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        blocking = blocking_columns(model.profile)
        columns = {"unique_id", "rec", "src", "dup", "birth_year", *columns_compared(model, "spark"), *blocking}
        held: pa.Table | None = None
        try:
            self.session.createDataFrame(rows.select(sorted(columns))).createOrReplaceTempView("rows")
            self.session.sql(pairs_sql(blocking)).createOrReplaceTempView("pairs")
            held = self.session.sql(best_sql(model, "pairs")).toArrow()
        except PySparkException as error:
            kind = error.getCondition() or type(error).__name__
            raise SparkFailed(f"Spark failed: {kind}") from None
        except Py4JError as error:
            raise SparkFailed(f"Spark failed: {type(error).__name__}") from None
        finally:
            with suppress(PySparkException, Py4JError):
                self.session.catalog.dropTempView("pairs")
                self.session.catalog.dropTempView("rows")
        return held.select(SCORED.names).cast(SCORED).sort_by([("rec_l", "ascending"), ("rec_r", "ascending")])


def pairs_sql(blocking: tuple[str, ...]) -> str:
    """SQL: each two rows of `rows` that are APART and have an equal value in one of these columns, once."""
    return f"""
        WITH keyed AS (
            SELECT unique_id, rec, src, dup, key, value
            FROM rows LATERAL VIEW posexplode(array({", ".join(blocking)})) AS key, value
            WHERE value IS NOT NULL
        )
        SELECT DISTINCT l.unique_id AS id_l, r.unique_id AS id_r
        FROM keyed l JOIN keyed r ON l.key = r.key AND l.value = r.value AND l.unique_id < r.unique_id AND {APART}
    """


def best_sql(model: Model, pairs: str) -> str:
    """SQL: each pair of records of `pairs` with the levels and the weight of its best pair of rows."""
    return f"""
        SELECT {", ".join(SCORED.names)}
        FROM (
            SELECT *, row_number() OVER (
                PARTITION BY rec_l, rec_r ORDER BY weight DESC, unique_id_l, unique_id_r) AS place
            FROM ({scored(model, pairs, keep=("rec", "birth_year"), dialect="spark")})
        )
        WHERE place = 1
    """


@contextmanager
def spark_engine(
    *, master: str | None = None, threads: int = 2, memory: str = "2g", settings: Mapping[str, str] | None = None
) -> Iterator[SparkEngine]:
    """An engine on a Spark of its own, which stops afterwards.  Raises SparkUnavailable.

    Without a master it runs in one process on this machine, on `threads` cores with `memory` in Java's notation.  With
    one (`spark://...`, `yarn`, `k8s://...`) it is the driver of that cluster, configured as the cluster's
    spark-defaults.conf and `settings` say, except for what SEALED holds.
    """
    if reason := missing():
        raise SparkUnavailable(reason)
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

    logging.getLogger("SQLQueryContextLogger").disabled = True  # errors quote values; SparkFailed has their kind
    with _private_folder() as folder:
        options = {**(_local(folder, threads, memory) if master is None else {"spark.master": master}),
                   **(settings or {}), **SEALED}  # fmt: skip
        conf = SparkConf().setAppName("linkage").setAll(list(options.items()))
        try:
            session = SparkSession.builder.config(conf=conf).getOrCreate()
        except Exception as error:
            raise SparkUnavailable(f"Spark did not start: {type(error).__name__}") from None
        try:
            yield SparkEngine(session)
        finally:
            _end(session)


@contextmanager
def _private_folder() -> Iterator[Path]:
    in_memory = MEMORY_FOLDER.is_dir() and os.access(MEMORY_FOLDER, os.W_OK)
    with tempfile.TemporaryDirectory(
        prefix="linkage-", dir=MEMORY_FOLDER if in_memory else None, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def _local(folder: Path, threads: int, memory: str) -> dict[str, str]:
    quiet = folder / "log4j2.properties"
    quiet.write_text("rootLogger.level = off\n", encoding="utf-8")  # Spark's errors quote the values they met
    java = [
        f"-Djava.io.tmpdir={folder}",
        f"-Dlog4j2.configurationFile={quiet}",
        "-XX:-UsePerfData",
        "-XX:-CreateCoredumpOnCrash",  # a core would hold encodings in clear
        f"-XX:ErrorFile={folder}/crash",
    ]
    return {
        "spark.master": f"local[{threads}]",
        "spark.driver.memory": memory,
        "spark.driver.maxResultSize": "0",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraJavaOptions": " ".join(java),
        "spark.local.dir": str(folder),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.sql.shuffle.partitions": str(4 * threads),
        "spark.log.level": "OFF",
        "spark.ui.showConsoleProgress": "false",
    }


def _end(session: SparkSession) -> None:
    """Stop the session and the Java process, which would keep what it read in memory for as long as Python runs."""
    from pyspark import SparkContext

    session.stop()
    gateway: Any = SparkContext._gateway
    if gateway is not None and getattr(gateway, "proc", None) is not None:
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait()
        SparkContext._gateway = SparkContext._jvm = None
