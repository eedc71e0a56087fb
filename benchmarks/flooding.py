"""A tenant that asks faster than it may, in a process of its own: `python -m benchmarks.flooding URL KEY PER_SECOND SECONDS`.

Prints how many of its requests were answered with which status, as JSON.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

THREADS = 4


def flood(url: str, key: str, per_second: float, seconds: float) -> Counter[int]:
    """At that pace, however it is answered."""
    answers: Counter[int] = Counter()
    lock, begin = threading.Lock(), time.monotonic()

    def ask(number: int) -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        for turn in range(number, int(per_second * seconds), THREADS):
            time.sleep(max(0.0, begin + turn / per_second - time.monotonic()))
            connection.request("POST", "/v1/query", json.dumps({"query": f"question {turn} of {begin}"}), headers)
            response = connection.getresponse()
            response.read()
            with lock:
                answers[response.status] += 1
        connection.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


if __name__ == "__main__":
    target, credential, pace, duration = sys.argv[1:]
    print(json.dumps(flood(target, credential, float(pace), float(duration))))
