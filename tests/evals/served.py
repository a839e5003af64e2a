"""A small server of OpenAI's protocol on a real socket, whose answers a test decides."""

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Served:
    """`answer(path, body)` -> (status, JSON). A context manager; `asked` holds (path, body)."""

    def __init__(self, answer, models=(("small", "somebody"),)):
        self.answer, self.models, self.asked = answer, models, []

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if outer.models is None:
                    return self.reply(404, {"error": {"message": "no such page"}})
                cards = [
                    {"id": name, "object": "model", "created": 0, "owned_by": owner}
                    for name, owner in outer.models
                ]
                return self.reply(200, {"object": "list", "data": cards})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, body))
                self.reply(*outer.answer(self.path, body))

            def reply(self, status, content):
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with suppress(BrokenPipeError):  # the client may have left
                    self.wfile.write(data)

            def log_message(self, *told):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *told):
        self.server.shutdown()
        self.server.server_close()


def completion(text, reason="stop", **more):
    """The body of a completion or of a talk, whichever reads it."""
    choice = {"index": 0, "finish_reason": reason, "text": text, "logprobs": None}
    choice["message"] = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 1, "completion_tokens": 7, "total_tokens": 8}
    told = {"id": "1", "object": "text_completion", "created": 0, "model": "small"}
    return {**told, "choices": [choice], "usage": usage, **more}
