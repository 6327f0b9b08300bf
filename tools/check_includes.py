#!/usr/bin/env python3
"""Checks that no folder includes what it must not know: the table below is the architecture.

Prints one line "file:line: message" for each fault and exits 1, else exits 0. The most specific
entry (longest path; files before folders) decides. A folder may always include itself and std.
"""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Third-party headers by their first path part (or whole name).
LIBRARIES = {
    "boost": "boost", "CLI": "cli11", "nlohmann": "nlohmann", "spdlog": "spdlog", "fmt": "spdlog",
    "prometheus": "prometheus", "openssl": "openssl", "pcre2.h": "pcre2", "utf8proc.h": "utf8proc",
    "Eigen": "eigen", "dnnl.hpp": "onednn", "dnnl.h": "onednn", "oneapi": "onednn", "omp.h": "openmp",
    "gtest": "gtest", "gmock": "gtest", "grpcpp": "grpc", "grpc": "grpc", "google": "protobuf", "ucp": "ucx",
    "ucs": "ucx", "nccl.h": "nccl", "cuda.h": "cuda", "cuda_runtime.h": "cuda",
    "cuda_runtime_api.h": "cuda", "cupti.h": "cuda", "cuda_bf16.h": "cuda", "cuda_fp8.h": "cuda", "cublasLt.h": "cuda",
    "cub": "cuda", "cuda": "cuda", "params.h": "flash_mla", "sm90": "flash_mla", "smxx": "flash_mla",
}
# Headers of the C library and the system: allowed everywhere.
SYSTEM = re.compile(r"^(sys/|arpa/|netinet/|[a-z0-9_]+$|(unistd|fcntl|sched|signal|pthread|poll|"
                    r"cxxabi|dirent|dlfcn|errno|spawn|netdb|strings|cpuid|immintrin|x86intrin)\.h$)")

BASE = ["engine/base"]
SEAM = ["kernels/core", "kernels/ops"]
REQUEST = BASE + ["engine/request"]
TEXT = BASE + ["engine/config"]

# path: (our folders or headers it may include, libraries it may include)
RULES = {
    "kernels/core": ([], []),
    "kernels/ops": (["kernels/core"], []),
    "kernels/cpu": (SEAM, ["onednn", "openmp"]),
    "kernels/cuda": (SEAM, ["cuda"]),
    # The invariant checks live below everything; base only gives them the engine's name.
    "engine/base": (["kernels/core/check.h"], []),
    "engine/base/log.cpp": (["kernels/core/check.h"], ["spdlog", "nlohmann"]),
    "engine/base/json_reader.cpp": (["kernels/core/check.h"], ["nlohmann"]),
    "engine/config": (BASE, ["nlohmann"]),
    "engine/request": (BASE, ["nlohmann"]),
    "engine/tokenizer": (BASE, ["nlohmann", "pcre2", "utf8proc"]),
    "engine/chat": (BASE, ["nlohmann", "utf8proc"]),
    "engine/cache": (TEXT + SEAM, ["openssl"]),
    "engine/weights": (TEXT + SEAM, ["nlohmann", "openssl"]),
    "engine/model": (TEXT + SEAM + ["engine/cache", "engine/weights", "engine/parallel"], []),
    "engine/scheduler": (TEXT + REQUEST + SEAM + ["engine/cache", "engine/model"], []),
    "engine/parallel": (TEXT + SEAM, []),
    # Ranks on GPUs; everything else of the engine reaches a GPU through kernels/ only.
    "engine/parallel/nccl_communicator.cpp": (TEXT + SEAM, ["cuda"]),
    "engine/parallel/nccl_library.h": (TEXT + SEAM, ["nccl"]),
    "engine/transport": (REQUEST + ["kernels/core"], []),
    "engine/transport/ucx_context.cpp": (REQUEST + ["kernels/core"], ["ucx"]),
    "engine/transport/ucx_link.cpp": (REQUEST + ["kernels/core"], ["ucx"]),
    "engine/runner": (TEXT + REQUEST + SEAM +
                      ["engine/cache", "engine/weights", "engine/parallel", "engine/model"], []),
    "engine/calibration": (TEXT + SEAM +
                           ["engine/cache", "engine/weights", "engine/parallel", "engine/model",
                            "engine/runner", "engine/quality"], ["nlohmann", "eigen"]),
    # What a measurement runs: a group of ranks without scheduler, on whatever backend it is given.
    "engine/pages": (BASE, []),
    "engine/quality": (TEXT + SEAM +
                       ["engine/pages", "engine/cache", "engine/weights", "engine/parallel", "engine/model",
                        "engine/runner"], ["nlohmann"]),
    "engine/handoff": (TEXT + REQUEST + SEAM +
                       ["engine/cache", "engine/model", "engine/scheduler", "engine/runner",
                        "engine/transport"], ["openssl"]),
    "engine/serving": (TEXT + REQUEST + SEAM +
                       ["engine/cache", "engine/weights", "engine/model", "engine/scheduler",
                        "engine/runner", "engine/parallel", "engine/transport",
                        "engine/handoff"], []),
    # The only file above kernels/ that names a backend.
    "engine/serving/compute_device.cpp": (["engine", "kernels"], []),
    "server/http": (BASE, ["boost", "openssl"]),
    "server/openai": (REQUEST + ["engine/config", "engine/tokenizer", "engine/chat",
                                 "server/console", "server/http/exchange.h", "server/metrics"],
                      ["nlohmann", "boost", "openssl"]),
    "server/console": (BASE, ["openssl"]),
    "server/metrics": (BASE + ["engine/request/request_metrics.h", "engine/serving/engine_metrics.h", "engine/handoff/handoff_metrics.h",
                               "server/router/router_metrics.h"], ["prometheus"]),
    # gRPC: services that workers offer, clients of them, conversion to the engine's types.
    "server/rpc": (REQUEST + ["engine/config", "engine/handoff", "engine/transport/landing.h",
                              "proto"], ["grpc", "protobuf"]),
    # Of them only the public API knows text.
    "server/rpc/text_preparer.cpp": (REQUEST + ["engine/chat/chat_template.h",
                                                "engine/tokenizer/tokenizer.h", "proto"],
                                     ["protobuf", "nlohmann"]),
    "server/rpc/text_session.h": (REQUEST + ["engine/tokenizer/detokenizer.h", "proto"], []),
    "server/router": (REQUEST + ["engine/config", "engine/handoff/worker_services.h", "server/rpc"],
                      ["openssl"]),
    "server/router/cluster_json.cpp": (REQUEST + ["engine/handoff/worker_services.h"],
                                       ["nlohmann"]),
    # A client of servers: it knows their protocols, and nothing of what is behind them.
    "server/bench": (BASE + ["engine/pages", "proto", "server/http/asio_types.h",
                             "server/rpc/grpc_process.h"],
                     ["boost", "grpc", "nlohmann"]),
    "server/cli": (TEXT, ["cli11", "nlohmann"]),
    # The composition root builds one part from the next.
    "server": (["engine", "server"], []),
    "tests": (["kernels", "engine", "server", "proto", "tests"],
              ["gtest", "nlohmann", "boost", "prometheus", "grpc", "protobuf", "ucx", "eigen"]),
    # Captures operations into a graph.
    "tests/unit/kernels/cuda/graph_test.cpp": (["kernels", "tests"], ["gtest", "cuda"]),
    "tools": (["kernels", "engine", "server"], ["nlohmann", "cli11"]),
    "tools/bench/gpu_kernel_times.cpp": ([], ["cuda"]),
    "tools/bench/gpu_bench.h": (["kernels"], ["cuda"]),
    "tools/bench/gpu_read_kernel.h": ([], ["cuda"]),
    "tools/bench/flash_mla.cu": (["kernels", "tools/bench"], ["flash_mla"]),
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
OUR_FOLDERS = ("kernels/", "engine/", "server/", "tests/", "tools/", "proto/")


def rule_for(path):
    parts = path.split("/")
    for length in range(len(parts), 0, -1):
        prefix = "/".join(parts[:length])
        if prefix in RULES:
            return prefix, RULES[prefix]
    return None, None


def allows(allowed, folder, header):
    own = folder + "/"
    return header.startswith(own) or any(
        header == entry or header.startswith(entry + "/") for entry in allowed)


def fault_of(path, quote, header):
    """Why the file at `path` must not include `header`, or None."""
    prefix, rule = rule_for(path)
    if rule is None:
        return "no rule for this folder in tools/check_includes.py"
    allowed, libraries = rule
    folder = prefix if not prefix.endswith((".h", ".cpp")) else str(Path(prefix).parent)
    if quote == '"' or header.startswith(OUR_FOLDERS):
        if not header.startswith(OUR_FOLDERS):
            return f'"{header}": write the path from the repository root'
        source = re.sub(r"(\.grpc)?\.pb\.h$", ".proto", header)  # generated headers
        if not (ROOT / source).exists():
            return f'"{header}" does not exist'
        return None if allows(allowed, folder, header) else f'{folder} must not include "{header}"'
    if SYSTEM.match(header) and header not in LIBRARIES:
        return None
    library = LIBRARIES.get(header, LIBRARIES.get(header.split("/")[0]))
    if library is None:
        return f"<{header}> belongs to no library known to tools/check_includes.py"
    return None if library in libraries else f"{folder} must not include {library} (<{header}>)"


def source_files():
    patterns = ["*.h", "*.cpp", "*.cu", "*.cuh", "*.inc"]
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard",
         "--", *patterns], check=True, capture_output=True, text=True)
    return sorted(path for path in listed.stdout.split("\0") if path and (ROOT / path).exists())


def main():
    files = source_files()
    faults = 0
    for path in files:
        for number, line in enumerate((ROOT / path).read_text().splitlines(), start=1):
            match = INCLUDE.match(line)
            fault = fault_of(path, *match.groups()) if match else None
            if fault:
                print(f"{path}:{number}: {fault}")
                faults += 1
    print(f"{len(files)} files, {faults} faults")
    return 1 if faults or not files else 0


if __name__ == "__main__":
    sys.exit(main())
