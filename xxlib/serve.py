"""A checkpoint -> a page on which visitors look at what it says of their scans: python -m xxlib.serve

The page keeps nothing of its visitors.  A question carries all that it is about (looks.Choice), its answer is made
in a worker process, and both are forgotten: no session, no kernel, no connection stays behind.  What visitors may take
is bounded, and who comes to a bound reads a sentence.
"""

import argparse
import asyncio
import base64
import resource
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler, stream_request_body

from xxlib.datasets.preparing.workers import Lost, WorkerProcess, WorkersFailed

MB = 1_000_000
LARGEST_SCAN = 20 * MB  # bytes of an upload
READ_AWAY = 1000 * MB  # bytes of an upload too large that are read and dropped, so that its sender hears why
QUESTIONS = 32  # under way at once, those that wait for a worker too
QUESTIONS_OF_ONE = 8  # of these from one address
CONNECTIONS, CONNECTIONS_OF_ONE = 400, 40  # open at once
SLOWEST = 60  # seconds for a request to come in
ANSWER_TIME = 30  # seconds that a worker has, until it is replaced
ANSWER_MEMORY = 1500 * MB  # that a worker may take beyond what it needs for its model
PAGE = Path(__file__).with_suffix(".html")
TOO_LARGE = f"This file is larger than {LARGEST_SCAN // MB} MB, the most that this page takes: export one scan only."
BUSY = "The page is answering as many questions as it can: try again in a moment."
BUSY_FOR_YOU = f"{QUESTIONS_OF_ONE} of your questions are still being answered: wait for them."
TOO_LONG = f"This took longer than {ANSWER_TIME} s and was given up: is the file what it seems to be?"
TOO_MUCH = "This ended the process that was to answer it (too much memory?): is the file what it seems to be?"
AWAY = "The process that answers could not be started again: try in a minute, or tell who keeps this page."


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="xxlib serve", description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="mp36k-wide", help="name, folder of a checkpoint (default: mp36k-wide)")
    parser.add_argument("--port", type=int, default=8866)
    parser.add_argument("--address", default="127.0.0.1", help="to listen at; the default is seen by this machine only")
    parser.add_argument("--workers", type=int, default=1, help="processes that answer, 0.7 to 2.2 GB each (default: 1)")
    parser.add_argument("--behind-proxy", action="store_true", help="visitors' addresses are in X-Real-IP")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        sockets = bind_sockets(options.port, options.address)
        desk = Desk(options.model, options.workers)
    except OSError as error:
        sys.exit(f"serve: {options.address}, port {options.port}: {error}: choose another with --port")
    except WorkersFailed as error:
        sys.exit(f"serve: {error}")
    try:
        asyncio.run(_serve(desk, sockets, options.behind_proxy))
    except KeyboardInterrupt:
        pass
    finally:
        desk.close()


async def _serve(desk, sockets, behind_proxy):
    page, controls = {"content": PAGE.read_text()}, {"content": desk.controls}
    handlers = [("/", Given, page), ("/controls", Given, controls), ("/look", Look, {"desk": desk})]
    application = Application(handlers, default_handler_class=Reply, log_function=lambda handler: None)
    limits = {"max_header_size": 16_384, "max_buffer_size": MB, "max_body_size": READ_AWAY}
    door = Door(application, xheaders=behind_proxy, idle_connection_timeout=SLOWEST, body_timeout=SLOWEST, **limits)
    door.of_one = CONNECTIONS if behind_proxy else CONNECTIONS_OF_ONE
    door.add_sockets(sockets)
    address, port = sockets[0].getsockname()[:2]
    print(f"The page is at http://{address}:{port}/ (Ctrl-C ends it)", flush=True)
    await asyncio.Event().wait()


class Door(HTTPServer):
    """An HTTP server that has so many connections at once, and so many with one address."""

    def handle_stream(self, stream, address):
        theirs = sum(connection.context.address[0] == address[0] for connection in self._connections)
        if len(self._connections) >= CONNECTIONS or theirs >= self.of_one:
            stream.close()
            return
        if sys.platform == "linux":  # who asks and does not read the answer is left
            stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * SLOWEST)
        super().handle_stream(stream, address)


class Reply(RequestHandler):
    """What every reply has in common: it is a sentence at least; nothing is here but what is named."""

    def set_default_headers(self):
        self.set_header("Cache-Control", "no-store")

    def prepare(self):
        if type(self) is Reply:
            raise HTTPError(404)

    def write_error(self, status_code, **_):
        self.finish(refusal(f"This page does not understand the request ({status_code}: {self._reason})."))


class Given(Reply):
    def initialize(self, content):
        self.content = content

    def get(self):
        self.finish(self.content)


@stream_request_body
class Look(Reply):
    """The answer to a Choice in the query, with a scan as the body: POST /look?formula=NaCl&name=scan.xy"""

    def initialize(self, desk):
        self.desk, self.content, self.bound, self.answer = desk, bytearray(), None, None

    def prepare(self):
        theirs = sum(other.request.remote_ip == self.request.remote_ip for other in self.desk.underway)
        if int(self.request.headers.get("Content-Length") or 0) > LARGEST_SCAN:
            self.bound = 413, TOO_LARGE
        elif theirs >= QUESTIONS_OF_ONE:
            self.bound = 429, BUSY_FOR_YOU
        elif len(self.desk.underway) >= QUESTIONS:
            self.bound = 503, BUSY
        else:
            self.desk.underway.add(self)

    def data_received(self, chunk):
        if not self.bound and len(self.content) + len(chunk) > LARGEST_SCAN:
            self.bound, self.content = (413, TOO_LARGE), bytearray()
        if not self.bound:  # or it is read and dropped: who sends it hears the reply only after that
            self.content += chunk

    async def post(self):
        if self.bound:
            self.set_status(self.bound[0])
            self.finish(refusal(self.bound[1]))
            return
        self.answer = self.desk.threads.submit(self.desk.answer, self._choice())
        with suppress(asyncio.CancelledError):  # who asked has left
            self.finish(await asyncio.wrap_future(self.answer))

    def _choice(self):
        """Arguments of a looks.Choice; raises HTTPError where the controls do not have them."""
        query, known = self.get_query_argument, self.desk.controls
        view, target = query("view", known["views"][0]), query("target", known["target"])
        try:
            row = int(query("crystal")) if query("crystal", "") else None
            hidden = tuple(map(int, self.get_query_arguments("hidden")))
        except ValueError:
            raise HTTPError(400) from None
        there = row is None or 0 <= row < len(known["crystals"])
        if not there or view not in known["views"] or target not in dict(known["targets"]):
            raise HTTPError(400)
        content, self.content = bytes(self.content), b""
        file = (query("name", "scan"), content) if content or query("name", "") else None
        return {"crystal": row, "file": file, "number": query("number", ""), "anode": query("anode", ""),
                "formula": query("formula", ""), "elements": query("elements", ""), "view": view, "hidden": hidden,
                "target": target}  # fmt: skip

    def on_finish(self):
        self.desk.underway.discard(self)

    def on_connection_close(self):
        self.desk.underway.discard(self)
        if self.answer:
            self.answer.cancel()


def refusal(why: str) -> dict:
    """The reply that there is no picture, and why."""
    return {"picture": "", "bars": "", "text": why, "answered": False, "candidates": []}


class Desk:
    """Worker processes that answer, one for each thread that hands them questions."""

    def __init__(self, model: str, n: int):
        """Raises WorkersFailed where the model cannot be loaded."""
        self.underway = set()  # what waits for an answer
        self.model, self.own, self.processes, self.threads = model, threading.local(), set(), ThreadPoolExecutor(n)
        self.controls = self.threads.submit(self._call, _controls).result()
        if "text" in self.controls:
            raise WorkersFailed(f"{model} could not be loaded. {self.controls['text']}")

    def answer(self, choice: dict) -> dict:
        """What a worker process says to a Choice, given as a dict: as looks.Seen, pictures in base64."""
        try:
            return self._call(_look, choice)
        except WorkersFailed:
            return refusal(AWAY)

    def _call(self, function, choice=None):
        process = getattr(self.own, "process", None)
        if process is None or process.popen.poll() is not None:
            process = self.own.process = WorkerProcess()  # ends with this thread
            self.processes.add(process)
            process.wait_until_ready()
        answer = process.call(function, (self.model, choice))
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Lost):
            self.processes.discard(process)
            answer = refusal(TOO_LONG if answer == "SIGALRM" else TOO_MUCH)
        return answer

    def close(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)
        for process in self.processes:
            process.end()


@cache
def _predictor(model):
    """The Predictor of a worker process, which may take ANSWER_MEMORY more from then on."""
    import torch

    from xxlib.answering.predictor import Predictor

    torch.set_num_threads(1)
    predictor = Predictor.load(model)
    if sys.platform == "linux":
        most = psutil.Process().memory_info().vms + ANSWER_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return predictor


def _controls(question):
    """What there is to choose from, in a worker process."""
    from xxlib.candidate_list import COLUMNS
    from xxlib.looks import VIEWS, Choice, crystals_of, first_reasons, look
    from xxlib.plots.views import parts
    from xxlib.scans.scan import ANODES

    predictor = _predictor(question[0])
    crystals = crystals_of(predictor.unseen, range(len(predictor.unseen)))
    formulas = predictor.unseen.column("formula")[:].tolist()
    for formula in (formulas[0], ""):  # what is slow the first time is done now
        look(predictor, Choice(crystal=0, formula=formula))
    targets = [(name, target.title) for name, target in predictor.targets.items()]
    return {"name": predictor.name, "crystals": [name for name, _ in crystals], "formulas": formulas,
            "anodes": list(ANODES), "views": VIEWS, "parts": parts(), "targets": targets,
            "target": first_reasons(predictor), "columns": COLUMNS,
            "largest": LARGEST_SCAN, "too_large": TOO_LARGE}  # fmt: skip


def _look(question):
    """What is seen of a Choice, in a worker process."""
    from xxlib.looks import Choice, look

    model, choice = question
    predictor = _predictor(model)
    signal.alarm(ANSWER_TIME)  # which ends the process
    seen = look(predictor, Choice(**choice))
    candidates = [
        {"row": one.row, "text": one.text, "file": one.file, "cif": one.cif,
         "picture": base64.b64encode(one.picture).decode()} for one in seen.candidates
    ]  # fmt: skip
    pictures = {name: base64.b64encode(getattr(seen, name)).decode() for name in ("picture", "bars")}
    signal.alarm(0)
    return {**pictures, "text": seen.text, "answered": seen.answered,
            "candidates": candidates, "chosen": seen.chosen}  # fmt: skip


if __name__ == "__main__":
    from xxlib import serve  # by the name under which worker processes find its functions

    serve.main()
