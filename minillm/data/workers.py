"""Shares the two passes of the mix (``minillm.data.shuffle``) among processes.

A worker is a plain ``python -m minillm.data.workers`` that reads a job and answers with its result.
Unlike those of multiprocessing it holds nothing in memory but what the job needs, asks for no
guard around the caller's main module, and works the same from a script and from a notebook.
"""

from __future__ import annotations

import errno
import heapq
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from minillm.data.readers import Quarantined
from minillm.data.report import FileReport
from minillm.data.shuffle import OUTPUTS, Bad, InputFile, Range, ScanJob, Scanned, WriteJob, Written
from minillm.errors import UserError
from minillm.microworld.identity import Persona

RANGE_BYTES = 16 << 20
"""Files are read in pieces of this size, dealt out in turn."""
PARALLEL_BYTES = 64 << 20
PARALLEL_ROWS = 100_000
"""Less to read than this many bytes, or to write than this many rows, is not worth a process."""

T = TypeVar("T", covariant=True)


class Scan(NamedTuple):
    """What the first pass found."""

    files: list[InputFile]
    ranges: list[Range]
    results: list[Scanned]
    """In the order of ``ranges``; with ``strict`` perhaps fewer."""
    folders: list[Path]

    def rows(self) -> Counter[str]:
        """Good rows by category."""
        return sum((Counter(result.rows) for result in self.results), Counter[str]())

    def bad_rows(self) -> Iterator[Quarantined]:
        """In the order of files and lines."""
        lines_before = {}
        lines = 0
        for result in self.results:
            lines = lines if self.ranges[result.number].start else 0
            lines_before[result.number] = lines
            lines += result.lines
        streams = [_bad_rows(folder / "bad.jsonl") for folder in self.folders]
        for bad in heapq.merge(*streams, key=lambda bad: (bad.range, bad.row.line)):
            bad.row.line += lines_before[bad.range]
            yield bad.row

    def reports(self) -> list[FileReport]:
        reports = [FileReport(file.path, file.category) for file in self.files]
        for result in self.results:
            report = reports[self.ranges[result.number].file]
            report.rows += sum(result.rows.values())
            report.quarantined += result.bad
        return reports


def _bad_rows(path: Path) -> Iterator[Bad]:
    with path.open("rb") as file:
        for line in file:
            yield msgspec.json.decode(line, type=Bad)


def scan(
    files: list[InputFile], first: int, folder: Path, seed: int, persona: Persona, strict: bool
) -> Scan:
    """Reads ``files[first:]``; notes and bad rows go to subfolders of ``folder``."""
    pieces = [
        (file, start)
        for file in range(first, len(files))
        for start in range(0, files[file].size, RANGE_BYTES)
    ]
    ranges = [
        Range(number, file, start, min(start + RANGE_BYTES, files[file].size))
        for number, (file, start) in enumerate(pieces)
    ]
    count = _workers(sum(file.size for file in files[first:]) / PARALLEL_BYTES)
    folders = [folder / str(i) for i in range(count)]
    for own in folders:
        own.mkdir(parents=True)
    jobs = [
        ScanJob(files, ranges[i::count], str(own), seed, persona, strict)
        for i, own in enumerate(folders)
    ]
    results = [result for reply in _run(jobs, list[Scanned]) for result in reply]
    return Scan(list(files), ranges, sorted(results, key=lambda result: result.number), folders)


def write(
    files: list[InputFile], order: Path, rows: int, folder: Path, persona: Persona
) -> Written:
    """Writes the ``rows`` ORDER records of ``order`` as OUTPUTS into ``folder``."""
    count = _workers(rows / PARALLEL_ROWS)
    folders = [folder / f"part{i}" for i in range(count)]
    for own in folders:
        own.mkdir()
    bounds = [256 * i // count for i in range(count + 1)]
    jobs = [
        WriteJob(files, str(own), str(order), bounds[i], bounds[i + 1], persona)
        for i, own in enumerate(folders)
    ]
    written, *others = _run(jobs, Written)
    for other in others:
        written.add(other)
    for name in OUTPUTS:
        with (folders[0] / name).open("ab") as file:
            for own in folders[1:]:
                with (own / name).open("rb") as rest:
                    shutil.copyfileobj(rest, file, 1 << 20)
                (own / name).unlink()
        (folders[0] / name).rename(folder / name)
    return written


# --- Processes ------------------------------------------------------------------------------------


class Job(Protocol[T]):
    def run(self) -> T: ...


def _workers(load: float) -> int:
    """How many processes a load of this many shares is worth."""
    return 2 if load > 1 and (os.cpu_count() or 1) > 1 else 1


def _run(jobs: Sequence[Job[T]], reply_type: type[T]) -> list[T]:
    """The results of the jobs, in order. Raises UserError or OSError as the jobs do."""
    if len(jobs) == 1:
        return [jobs[0].run()]
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "minillm.data.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        for _ in jobs
    ]
    try:
        for process, job in zip(processes, jobs, strict=True):
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(job))
            process.stdin.close()
        return [_reply(process, reply_type) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _reply(process: subprocess.Popen[bytes], reply_type: type[T]) -> T:
    assert process.stdout is not None
    reply = process.stdout.read()
    process.wait()
    if process.returncode == 2:
        raise UserError(reply.decode())
    if process.returncode:
        raise RuntimeError(f"a worker process ended with exit code {process.returncode}")
    return msgspec.json.decode(reply, type=reply_type)


def explain(error: OSError) -> str:
    """One line on what could not be read or written."""
    if error.errno == errno.ENOSPC:
        return "no space left on disk: free some, or choose another --out_dir; nothing was changed"
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}; nothing was changed"


def main() -> None:
    """Reads a job from stdin and writes its result, or an error with exit code 2, to stdout."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C goes to the parent, which ends its workers
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=ScanJob | WriteJob)
    try:
        reply = msgspec.json.encode(job.run())
    except UserError as error:
        sys.exit(_fail(str(error)))
    except OSError as error:
        sys.exit(_fail(explain(error)))
    sys.stdout.buffer.write(reply)


def _fail(message: str) -> int:
    sys.stdout.write(message)
    return 2


if __name__ == "__main__":
    main()
