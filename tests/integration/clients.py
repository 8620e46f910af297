"""Clients that ask an endpoint without a pause, and what they were answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import requests
from following import Picture
from serving import refine

CLIENTS = 3
"""More than there are CPUs; each further one takes them from the processes that promote."""


@dataclass(frozen=True)
class Answer:
    """What a request came to."""

    picture: int
    begun: float
    status: int
    model: str
    body: bytes


class Load:
    """Clients that send the next image as soon as they have the map of the last."""

    def __init__(self, url: str, pictures: Sequence[Picture]) -> None:
        self._url, self._pictures, self._over = url, pictures, threading.Event()
        self._answers: list[list[Answer]] = [[] for _ in range(CLIENTS)]
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def answers(self) -> list[Answer]:
        return [answer for several in self._answers for answer in several]

    def since(self, moment: float) -> bool:
        """Whether every client has an answer to a request it began after the moment."""
        return all(several and several[-1].begun > moment for several in self._answers)

    def _ask(self, client: int) -> None:
        turn = client
        while not self._over.is_set():
            picture, begun = turn % len(self._pictures), time.monotonic()
            turn += 1
            try:
                answer = refine(self._url, self._pictures[picture].body)
                model = answer.headers.get("x-idgbr-model", "")
                result = Answer(picture, begun, answer.status_code, model, answer.content)
            except requests.RequestException as error:
                result = Answer(picture, begun, 0, "", str(error).encode())
            self._answers[client].append(result)
