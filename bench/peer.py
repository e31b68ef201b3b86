"""FastAPI as people write it: one POST route with a JSON body, called without a queue."""

from fastapi import FastAPI

app = FastAPI()


@app.post("/run")
async def run(body: dict[str, object]) -> dict[str, object]:
    return {"status": "COMPLETED", "output": {"ok": True}}
