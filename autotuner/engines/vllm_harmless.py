"""What of vLLM is harmless, so that a study from afar may set it.

Each flag was decided by its name and help, in the catalogs of vLLM 0.10.0 and 0.32.0: harmless are
those that take numbers, switches, plain words, and JSON of these, and with them read no file, run
no code, open no port and reach no machine. What a newer version has is not, until it stands here.
"""

from __future__ import annotations

from autotuner.engines.base import Harmless

_FLAGS = """
aggregate-engine-logging all2all-backend allow-deprecated-quantization
anthropic-disabled-thinking-effort api-server-count async-scheduling attention-backend
attention-config block-size calculate-kv-scales chat-template-content-format cohere-format
cohere-is-reasoning-model compilation-config convert cp-kv-cache-interleave-size
cpu-distributed-timeout-seconds cpu-offload-gb cpu-offload-params cuda-graph-sizes
cudagraph-capture-sizes cudagraph-metrics custom-histogram-buckets data-parallel-size
dbo-decode-token-threshold dbo-prefill-token-threshold dcp-comm-backend
dcp-kv-cache-interleave-size dcp-q-replicate decode-context-parallel-size
default-chat-template-kwargs disable-async-output-proc disable-cascade-attn
disable-chunked-mm-input disable-custom-all-reduce disable-fastapi-docs
disable-frontend-multiprocessing disable-hybrid-kv-cache-manager disable-log-requests
disable-log-stats disable-mm-preprocessor-cache disable-nccl-for-dp-synchronization
disable-sliding-window disable-uvicorn-access-log distributed-timeout-seconds
dp-supervisor-probe-failure-threshold dp-supervisor-probe-interval-s dp-supervisor-probe-timeout-s
dp-sync-interval dtype enable-auto-tool-choice enable-batch-sharded-sampling
enable-chunked-prefill enable-cumem-allocator enable-dbo enable-ep-weight-filter enable-eplb
enable-expert-parallel enable-flash-late-interaction enable-flashinfer-autotune
enable-force-include-usage enable-hc-sp enable-layerwise-nvtx-tracing enable-log-deltas
enable-log-outputs enable-log-requests enable-logging-iteration-details enable-lora
enable-lora-bias enable-mamba-cache-stochastic-rounding enable-mamba-shared-prefix-checkpoint
enable-mfu-metrics enable-mixed-moe-lora-format enable-moe-shared-loras
enable-multimodal-encoder-data-parallel enable-nccl-comm-suspend enable-offline-docs
enable-per-request-metrics enable-prefix-caching enable-prompt-tokens-details
enable-request-id-headers enable-return-routed-experts enable-server-load-tracking
enable-shm-tensor-arena enable-sleep-mode enable-tokenizer-info-endpoint
enable-tower-connector-lora enable-trace-replay enforce-eager eplb-config eplb-log-balancedness
eplb-step-interval eplb-window-size exclude-tools-when-tool-choice-none expert-placement-strategy
fail-on-environ-validation fingerprint-mode fingerprint-value fully-sharded-loras
gdn-prefill-backend gpu-memory-utilization guided-decoding-backend
guided-decoding-disable-additional-properties guided-decoding-disable-any-whitespace
guided-decoding-disable-fallback h11-max-header-count h11-max-incomplete-event-size
interleave-mm-strings ir-op-priority jit-monitor-mode jit-monitor-verbose kda-decode-backend
kda-prefill-backend kernel-config kv-cache-dtype kv-cache-dtype-skip-layers kv-cache-memory-bytes
kv-cache-metrics kv-cache-metrics-sample kv-offloading-size kv-sharing-fast-prefill
language-model-only limit-mm-per-prompt linear-backend log-error-stack log-level logprobs-mode
long-prefill-token-threshold long-prefill-token-threshold-adaptive lora-dtype
lora-extra-vocab-size lora-target-modules mamba-backend mamba-block-size mamba-cache-dtype
mamba-cache-mode mamba-cache-philox-rounds mamba-ssm-cache-dtype mamba-ssu-algorithm max-cpu-loras
max-cudagraph-capture-size max-log-len max-logprobs max-long-partial-prefills max-lora-cls-labels
max-lora-rank max-loras max-model-len max-num-active-seqs max-num-batched-tokens
max-num-partial-prefills max-num-queued-reqs max-num-queued-tokens max-num-scheduled-tokens
max-num-seqs max-parallel-loading-workers max-seq-len-to-capture mm-device-do-normalize
mm-encoder-attn-backend mm-encoder-attn-dtype mm-encoder-fp8-scale-save-margin mm-encoder-only
mm-encoder-tp-mode mm-hasher-algorithm mm-ipc-gpu-memory-gb mm-processor-cache-gb
mm-processor-cache-type mm-processor-device mm-shm-cache-max-object-size-mb mm-tensor-ipc
model-impl model-loader-extra-config moe-backend multi-step-stream-outputs num-gpu-blocks-override
num-lookahead-slots num-redundant-experts num-scheduler-steps numa-bind numa-bind-cpus
numa-bind-nodes offload-backend offload-group-size offload-num-in-group offload-params
offload-prefetch-step optimization-level override-attention-dtype override-generation-config
override-pooler-config per-request-spec-decode-metrics performance-mode pipeline-parallel-size
pooler-config preemption-mode prefill-context-parallel-size prefill-schedule-interval
prefix-cache-retention-interval prefix-caching-hash-algo prefix-match-unit pt-load-map-location
quantization reasoning-parser renderer-num-workers replayssm-buffer-len response-role
return-sampling-mask return-tokens-as-token-ids rope-scaling rope-theta runner
safetensors-load-strategy safetensors-prefetch-block-size safetensors-prefetch-num-threads
scheduler-delay-factor scheduler-reserve-full-isl scheduling-policy seed shutdown-timeout
skip-mm-profiling skip-tokenizer-init sleep-mode-offload-cudagraph sparse-indexer-topk-backend
spec-tokens specialize-active-lora sse-keep-alive-interval stream-interval swa-bounded-replay
swap-space task tensor-parallel-size tokenizer-mode tokens-only tool-call-parser tool-strict-level
ubatch-size use-fp64-gumbel use-replayssm use-tqdm-on-load uvicorn-log-level video-pruning-method
video-pruning-rate watermark
"""

_VARIABLES = (
    *("VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_CPU_NUM_OF_RESERVED_CPU"),
    *("VLLM_CPU_SGL_KERNEL", "VLLM_CPU_MOE_PREPACK", "VLLM_ATTENTION_BACKEND", "VLLM_USE_V1"),
    *("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "VLLM_LOGGING_LEVEL", "VLLM_USE_DEEP_GEMM"),
    *("VLLM_FLASH_ATTN_VERSION", "VLLM_ALL2ALL_BACKEND", "VLLM_USE_FLASHINFER_SAMPLER"),
    *("VLLM_USE_FLASHINFER_MOE_FP8", "VLLM_USE_FLASHINFER_MOE_FP4", "VLLM_USE_TRITON_FLASH_ATTN"),
    *("VLLM_ROCM_USE_AITER", "VLLM_FUSED_MOE_CHUNK_SIZE", "VLLM_WORKER_MULTIPROC_METHOD"),
    *("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_DISABLE_COMPILE_CACHE", "VLLM_SKIP_WARMUP"),
)

HARMLESS = Harmless(
    flags=frozenset(_FLAGS.split()),
    values={
        "config-format": frozenset(("auto", "hf", "mistral")),
        "data-parallel-backend": frozenset(("mp",)),  # the other joins the machine's Ray
        "distributed-executor-backend": frozenset(("mp", "uni")),  # or a class of Python
        "generation-config": frozenset(("auto", "vllm")),  # or a directory
        "kv-offloading-backend": frozenset(("native",)),
        "load-format": frozenset(  # others unpickle, or fetch from elsewhere
            ("auto", "safetensors", "fastsafetensors", "dummy", "gguf", "bitsandbytes", "mistral")
        ),
        "spec-method": frozenset(
            ("ngram", "suffix", "eagle", "eagle3", "medusa", "mlp_speculator", "draft_model", "mtp")
        ),  # custom_class imports one
    },
    keys={
        "speculative-config": frozenset(
            (
                *("method", "model", "num_speculative_tokens", "prompt_lookup_max"),
                *("prompt_lookup_min", "draft_tensor_parallel_size", "max_model_len"),
                *("enforce_eager", "quantization", "disable_padded_drafter_batch"),
                "disable_by_batch_size",
                *("rejection_sample_method", "parallel_drafting", "attention_backend"),
            )
        ),
        "structured-outputs-config": frozenset(
            (
                *("backend", "disable_fallback", "disable_any_whitespace", "reasoning_parser"),
                *("disable_additional_properties", "enable_in_reasoning"),
            )
        ),
    },
    models=frozenset(("spec-model", "speculative-config.model")),
    code=("custom_class",),
    variables=_VARIABLES,
)
