"""Examples of what is sent and answered, for the OpenAPI document. Values, all of one study."""

from __future__ import annotations

from typing import Any


def shown(*values: Any) -> dict[str, Any]:
    """What a schema says of its examples."""
    return {"examples": list(values)}


def page(*items: Any) -> dict[str, Any]:
    """A list of which that is all."""
    return {"items": list(items), "total": len(items), "page": 1, "per_page": 50}


STUDY: dict[str, Any] = {
    "name": "llama-3-8b",
    "model": {"path": "meta-llama/Llama-3.1-8B-Instruct"},
    "engine": {"kind": "vllm", "version": "0.32.0"},
    "space": {"max-num-seqs": [64, 128, 256], "enable-chunked-prefill": [True, False]},
    "workload": {"scenarios": ["D(1024,256)"], "concurrency": [8, 64], "max_seconds": 60},
    "objectives": ["output_throughput"],
    "limits": {"trials": 20},
}
YAML = """\
name: llama-3-8b
model: {path: meta-llama/Llama-3.1-8B-Instruct}
engine: {kind: vllm, version: 0.32.0}
space:
  max-num-seqs: [64, 128, 256]
  enable-chunked-prefill: [true, false]
workload: {scenarios: ["D(1024,256)"], concurrency: [8, 64], max_seconds: 60}
objectives: [output_throughput]
limits: {trials: 20}
"""
"""The same study, as a file."""

COMMAND = (
    "vllm serve meta-llama/Llama-3.1-8B-Instruct --served-model-name Llama-3.1-8B-Instruct "
    "--host 0.0.0.0 --port 8000 --max-num-seqs 128"
)
DIRECTORY = "/home/tuner/.autotuner/studies/llama-3-8b"

ROW: dict[str, Any] = {
    "name": "llama-3-8b",
    "team": "",
    "description": "",
    "state": "RUNNING",
    "reason": "",
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "engine": "vllm",
    "backend": "process",
    "objectives": [{"name": "output_throughput", "unit": "tok/s", "better": "higher"}],
    "counts": {"COMPLETE": 1, "BENCHMARKING": 1, "REFUSED": 3},
    "blocks": [
        {"number": 0, "state": "COMPLETE", "feasible": True, "parameters": {}, "note": ""},
        {
            "number": 4,
            "state": "BENCHMARKING",
            "feasible": False,
            "parameters": {"max-num-seqs": 256},
            "note": "D(1024,256) x 64",
        },
    ],
    "more": 0,
    "running": [{"trial": 4, "round": 0, "state": "BENCHMARKING", "note": "D(1024,256) x 64"}],
    "finals": {"round": 0, "launches": 0, "finding": None},
    "budget": 20,
    "best": {"number": 0, "value": 2310.5},
    "baseline": 2310.5,
    "gain": 0.0,
    "seconds": 431.2,
    "eta": 5200.0,
    "created_at": "2026-11-22T12:00:00.000+00:00",
    "started_at": "2026-11-22T12:00:05.000+00:00",
    "ended_at": "",
    "event": 17,
}

TRIAL: dict[str, Any] = {
    "number": 4,
    "state": "INFEASIBLE",
    "parameters": {"max-num-seqs": 256},
    "objectives": {},
    "violations": {},
    "load_points": [
        {
            "index": 0,
            "scenario": "D(1024,256)",
            "concurrency": 64,
            "name": "D(1024,256) x 64",
            "seconds": 60.0,
            "metrics": {"output_throughput": 2618.0, "ttft_p90": 1.2},
            "probe": False,
            "telemetry": {"kv_usage_max": 0.71, "waiting_max": 0.0},
        }
    ],
    "phases": [{"name": "deploy", "start": 0.0, "end": 48.0}],
    "feasible": False,
    "refused": False,
    "searched": True,
    "baseline": False,
    "failure": "out of memory under load",
    "reason": "CUDA out of memory",
    "advice": "lower gpu-memory-utilization",
    "why": "",
    "node": "10.0.0.7",
    "gpu_ids": ["0"],
    "seconds": 122.0,
    "gpu_hours": 0.034,
    "created_at": "2026-11-22T12:03:00.000+00:00",
    "started_at": "2026-11-22T12:03:00.000+00:00",
    "ended_at": "2026-11-22T12:05:02.000+00:00",
}

STUDY_DETAIL: dict[str, Any] = {
    **ROW,
    "spec": STUDY,
    "yaml": YAML,
    "job": "llama-3-8b-5f1e0c",
    "driver": "tuner 4711:1795348805",
    "command": COMMAND,
    "directory": DIRECTORY,
}

TRIAL_DETAIL: dict[str, Any] = {
    **TRIAL,
    "argv": COMMAND.split(),
    "command": COMMAND,
    "plan": {
        "backend": "process",
        "request": {"argv": COMMAND.split(), "environment": {}, "port": 20001, "trial": 4},
    },
    "telemetry": [
        {
            "load": "D(1024,256) x 64",
            "index": 0,
            "seconds": [0.0, 1.0],
            "series": {"kv_usage": [0.12, 0.31], "running": [64.0, 64.0]},
        }
    ],
    "files": ["load-0/telemetry.json", "plan.json", "server.log"],
    "logs": {"server": 18231, "benchmark": 511, "trial": 0},
}

_BEST: dict[str, Any] = {
    **TRIAL,
    "number": 7,
    "state": "COMPLETE",
    "parameters": {"max-num-seqs": 128},
    "objectives": {"output_throughput": 2618.0},
    "feasible": True,
    "failure": None,
    "reason": "",
    "advice": "",
}

REPORT: dict[str, Any] = {
    "standing": "COMPLETE",
    "study": {"name": "llama-3-8b", "engine": "vllm", "loads": ["D(1024,256) x 64"]},
    "counts": {"COMPLETE": 12, "INFEASIBLE": 2, "REFUSED": 5},
    "baseline": 0,
    "best": 7,
    "winner": 7,
    "front": [7],
    "gain": {"output_throughput": 0.133},
    "gain_interval": [0.094, 0.172],
    "verdict": None,
    "statement": {
        "sentence": "Trial 7 beats vllm's defaults by 13.3 % (95 % CI 9.4 to 17.2).",
        "notes": [],
    },
    "failures": [
        {
            "failure": "out of memory under load",
            "count": 1,
            "trials": [4],
            "reasons": [{"reason": "CUDA out of memory", "count": 1, "reasons": 1}],
            "advice": ["lower gpu-memory-utilization"],
        }
    ],
    "refused": [{"reason": "needs 96 GiB of 80", "count": 5, "trials": [1, 2, 3, 5, 6]}],
    "accuracy": {},
    "cost": {"launches": 14, "seconds": 5230.0, "gpu_hours": 1.45},
    "trials": [_BEST, TRIAL],
    "command": COMMAND,
    "importance": {"max-num-seqs": 0.81, "enable-chunked-prefill": 0.19},
    "importance_needs": None,
}

PLANNED: dict[str, Any] = {
    "name": "llama-3-8b",
    "size": 6,
    "looked_at": 6,
    "refused": {},
    "doubted": {},
    "trials": 6,
    "load_points": ["D(1024,256) x 8", "D(1024,256) x 64"],
    "launches": [
        {
            "name": "baseline",
            "parameters": {},
            "argv": COMMAND.split()[:-2],
            "environment": {},
            "image": None,
            "gpus": 1,
        }
    ],
    "seconds_expected": 2880.0,
    "gpu_hours_expected": 0.8,
    "quantization": {},
    "notes": [],
}

CONVERTED: dict[str, Any] = {"content": STUDY, "yaml": YAML, "notes": [], "problems": []}

LAUNCH: dict[str, Any] = {
    "argv": COMMAND.split(),
    "arguments": COMMAND.split()[2:],
    "environment": {},
    "image": "vllm/vllm-openai:v0.32.0",
    "gpus": 1,
}

STUDY_EVENT: dict[str, Any] = {
    "at": "2026-11-22T12:00:05.000+00:00",
    "state": "RUNNING",
    "reason": "",
    "job": "llama-3-8b-5f1e0c",
}
TRIAL_EVENT: dict[str, Any] = {
    "at": "2026-11-22T12:03:48.000+00:00",
    "number": 4,
    "state": "BENCHMARKING",
    "note": "D(1024,256) x 64",
    "parameters": {"max-num-seqs": 256},
    "objectives": {},
    "feasible": False,
    "failure": None,
    "reason": "",
    "load_points": 1,
    "repeat_of": None,
    "round": 0,
}

LINES = ["Starting the server", "Application startup complete."]
"""Of a log."""

PRESET: dict[str, Any] = {
    "name": "team/long-prompts",
    "why": "Prompts of 8,000 tokens and more.",
    "engine": "vllm",
    "category": "team",
    "parameters": {"max-num-seqs": [64, 128], "max-num-batched-tokens": [8192, 16384]},
}
PRESETS_YAML = """\
- name: team/long-prompts
  why: Prompts of 8,000 tokens and more.
  engine: vllm
  category: team
  parameters:
    max-num-seqs: [64, 128]
    max-num-batched-tokens: [8192, 16384]
"""
"""A list of that preset, as a file."""
PRESET_ROW: dict[str, Any] = {**PRESET, "own": True, "shadows": False}

FLAG: dict[str, Any] = {
    "name": "max-num-seqs",
    "aliases": [],
    "kind": "int",
    "choices": None,
    "default": None,
    "suffixes": False,
    "auto": False,
    "deprecated": False,
    "commonly_tuned": True,
}
COMPARISON: dict[str, Any] = {
    "engines": [
        {"engine": "vllm", "version": "0.32.0", "flags": 316, "only": ["max-num-seqs"]},
        {"engine": "sglang", "version": "0.5.23", "flags": 470, "only": ["max-running-requests"]},
    ],
    "common": [{"names": ["dtype", "dtype"], "differs": ""}],
}

CLUSTER: dict[str, Any] = {
    "nodes": [
        {
            "id": "5f1e0c5f1e0c",
            "name": "10.0.0.7",
            "host": "gpu-7",
            "alive": True,
            "cpus": 64.0,
            "cpus_used": 4.0,
            "gpus": 8.0,
            "gpus_used": 1.0,
            "memory_gib": 1007.5,
            "memory_used_gib": 61.2,
            "devices": [
                {
                    "index": 0,
                    "uuid": "GPU-5f1e0c",
                    "name": "NVIDIA H100 80GB HBM3",
                    "memory_gib": 79.6,
                    "memory_used_gib": 71.3,
                    "utilisation": 0.97,
                    "temperature_c": 61.0,
                    "power_w": 640.0,
                }
            ],
            "problem": "",
        }
    ],
    "holds": [
        {
            "node": "10.0.0.7",
            "gpu_ids": ["0"],
            "study": "llama-3-8b",
            "trial": 4,
            "state": "BENCHMARKING",
            "since": "2026-11-22T12:03:00.000+00:00",
        }
    ],
    "queue": [{"study": "llama-3-8b", "trial": 5, "gpus": 1, "waiting": "1 GPU"}],
    "studies": {"RUNNING": 1, "COMPLETE": 3},
    "problem": "",
}
TIMELINE: dict[str, Any] = {
    "now": "2026-11-22T12:07:16.000+00:00",
    "from": "2026-11-21T12:07:16.000+00:00",
    "trials": [
        {
            "study": "llama-3-8b",
            "number": 4,
            "repeat_of": None,
            "state": "INFEASIBLE",
            "feasible": False,
            "node": "10.0.0.7",
            "gpu_ids": ["0"],
            "started_at": "2026-11-22T12:03:00.000+00:00",
            "ended_at": "2026-11-22T12:05:02.000+00:00",
            "phases": [{"name": "deploy", "start": 0.0, "end": 48.0}],
            "note": "",
            "objectives": {},
        }
    ],
}

VERSION: dict[str, Any] = {
    "name": "autotuner",
    "version": "0.1.0",
    "python": "3.11.7",
    "ray": "2.60.0",
    "engines": ["vllm", "sglang", "simulated"],
    "timezone": "Europe/Berlin",
}
CALLER: dict[str, Any] = {"name": "anna", "role": "operator", "team": "chat", "tokens": True}
TOKEN: dict[str, Any] = {
    "name": "anna",
    "role": "operator",
    "team": "chat",
    "created_at": "2026-11-22T11:00:00+00:00",
}
