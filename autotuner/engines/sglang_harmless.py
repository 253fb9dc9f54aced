"""What of SGLang is harmless, so that a study from afar may set it.

Each flag was decided by its name and help, in the catalogs of SGLang 0.5.2 and 0.5.23: harmless are
those that take numbers, switches, plain words, and JSON of these, and with them read no file, run
no code, open no port and reach no machine. What a newer version has is not, until it stands here.
"""

from __future__ import annotations

from autotuner.engines.base import Harmless

_FLAGS = """
abort-on-priority-when-disabled allow-auto-truncate asr-max-buffer-seconds
asr-max-concurrent-sessions attention-backend attn-cp-size attn-dp-size batch-notify-size
bf16-gemm-backend boundary-reduction bucket-e2e-request-latency bucket-inter-token-latency
bucket-time-to-first-token c128-page-size chunked-prefill-size collect-tokens-histogram
constrained-json-disable-any-whitespace constrained-json-max-whitespace-cnt context-length
cp-strategy cpu-offload-gb cuda-graph-backend-decode cuda-graph-backend-prefill cuda-graph-bs
cuda-graph-bs-decode cuda-graph-bs-prefill cuda-graph-config cuda-graph-max-bs
cuda-graph-max-bs-decode cuda-graph-max-bs-prefill cuda-graph-max-seq-len-prefill
cuda-graph-prefill-max-context data-parallel-size dcp-comm-backend dcp-replicate-q-proj dcp-size
debug-cuda-graph decode-attention-backend decode-log-interval deepep-dispatcher-output-dtype
deepep-mode deepep-v2-mode default-chat-template-kwargs default-priority-value
detokenizer-worker-num device disable-aiter-allreduce-fusion-in-decode
disable-aiter-allreduce-fusion-in-prefill disable-attn-tp-gather disable-chunked-prefix-cache
disable-cuda-graph disable-cuda-graph-padding disable-custom-all-reduce disable-decode-cuda-graph
disable-fast-image-processor disable-flashinfer-autotune
disable-flashinfer-cutlass-moe-fp4-allgather disable-hybrid-swa-memory disable-outlines-disk-cache
disable-overlap-schedule disable-prefill-cuda-graph disable-priority-preemption
disable-radix-cache disable-shared-experts-fusion disable-tokenizer-batch-decode dist-timeout
dllm-algorithm dllm-fdfo dp-size ds-heavy-channel-num ds-heavy-channel-type ds-heavy-token-num
ds-sparse-decode-threshold dsa-decode-backend dsa-paged-mqa-logits-backend dsa-prefill-backend
dsa-topk-backend dsa-triton-union dsv4-attn-backend dsv4-prefill-backend dtype dwdp-size
dynamic-batch-tokenizer-batch-size dynamic-batch-tokenizer-batch-timeout
enable-aiter-allreduce-fusion enable-amd-monokernel enable-attn-tp-input-scattered
enable-broadcast-mm-inputs-process enable-cache-report enable-cp-decode-attn-tp
enable-cudagraph-gc enable-decoder-swa-bounded-replay enable-deepep-moe
enable-deepseek-v4-fp4-indexer enable-dense-mlp-attn-tp enable-deterministic-inference
enable-double-sparsity enable-dp-attention enable-dp-attention-local-control-broadcast
enable-dp-lm-head enable-draft-weights-cpu-backup enable-dsa-cache-layer-split
enable-dsa-fused-indexer enable-dynamic-batch-tokenizer enable-dynamic-chunking
enable-encoder-swa-bounded-replay enable-ep-moe enable-eplb enable-expert-distribution-metrics
enable-flashinfer-allreduce-fusion enable-flashinfer-cutlass-moe enable-flashinfer-mxfp4-moe
enable-flashinfer-trtllm-moe enable-fp32-lm-head enable-fused-moe-sum-all-reduce
enable-fused-qk-norm-rope enable-hierarchical-cache enable-hisparse enable-http-worker-reuseport
enable-int8-mamba-checkpoint enable-kv-cache-sharding enable-layernorm-sp
enable-layerwise-nvtx-marker enable-lean-attention enable-linear-replayssm
enable-linear-replayssm-spec enable-linker-mla-dedup enable-lora enable-lora-overlap-loading
enable-mamba-cache-stochastic-rounding enable-megamoe-for-layernorm-sp enable-memory-saver
enable-metrics enable-metrics-for-all-schedulers enable-mfu-metrics enable-mis enable-mixed-chunk
enable-mscclpp enable-multi-layer-eagle enable-multimodal enable-nan-detection enable-nccl-nvls
enable-nvidia-megakernel enable-p2p-check enable-page-major-kv-layout enable-paged-experts
enable-precise-embedding-interpolation enable-prefill-cp enable-prefill-delayer
enable-prefix-mm-cache enable-priority-scheduling enable-profile-cuda-graph
enable-quant-communications enable-request-time-stats-logging enable-return-aux-hidden-states
enable-return-hidden-states enable-return-indexer-topk enable-return-routed-experts
enable-scattered-sconv enable-session-radix-cache enable-shared-experts-attn-tp
enable-single-batch-overlap enable-strict-thinking enable-symm-mem enable-tf32-matmul
enable-tokenizer-batch-encode enable-torch-compile enable-torch-symm-mem
enable-tp-lm-head-all-to-all enable-triton-kernel-moe enable-two-batch-overlap
enable-unified-memory enable-w4a4-mxfp4-megamoe enable-waterfill enable-watermark
enable-weights-cpu-backup encoder-only encoder-transfer-backend
enforce-disable-flashinfer-allreduce-fusion enforce-shared-experts-fusion ep-dispatch-algorithm
ep-num-redundant-experts ep-size eplb-algorithm eplb-min-rebalancing-utilization-threshold
eplb-rebalance-layers-per-chunk eplb-rebalance-num-iterations expert-balancedness-report-mode
expert-parallel-size experts-shared-outer-loras flashinfer-a2a-dispatch-type
flashinfer-allreduce-fusion-backend flashinfer-mla-disable-ragged flashinfer-mxfp4-moe-precision
fp4-gemm-backend fp8-gemm-backend fuseep-mode gc-threshold gc-warning-threshold-secs
generation-tokens-buckets grammar-backend grpc-response-timeout-secs hf-chat-template-name
hicache-host-memory-fraction hicache-host-memory-mode hicache-io-backend hicache-mem-layout
hicache-ratio hicache-size hicache-write-policy http2-initial-connection-window-size
http2-max-concurrent-streams hybrid-kvcache-ratio image-processor-backend
incremental-streaming-output int8-mamba-ckpt-size is-embedding kt-cpuinfer
kt-max-deferred-experts-per-token kt-method kt-num-gpu-experts kt-threadpool-count kv-cache-dtype
kv-canary kv-canary-real-data kv-canary-sweep-interval language-model-only language-only
limit-mm-data-per-request linear-attn-backend linear-attn-decode-backend
linear-attn-prefill-backend linear-attn-verify-backend linear-replayssm-cache-len
load-balance-method load-snapshot-publish-interval log-level log-level-http log-requests
log-requests-format log-requests-level lora-backend lora-drain-wait-threshold lora-eviction-policy
lora-strict-loading lora-target-modules lora-use-virtual-experts mamba-backend
mamba-cache-philox-rounds mamba-full-memory-ratio mamba-max-states-per-path
mamba-radix-cache-strategy mamba-ssm-dtype mamba-track-interval max-ep-size max-loaded-loras
max-lora-chunk-size max-lora-rank max-loras-per-batch max-mamba-cache-size max-micro-batch-size
max-prefill-tokens max-queued-requests max-running-requests max-total-tokens
media-url-max-file-size-mb mem-fraction-static min-free-slots-delay mlx-enable-sampling
mm-attention-backend mm-enable-dp-encoder mm-feature-transport mm-io-worker-num
mm-preprocess-cache-size-mb mm-processor-worker-num model-config-parser model-impl
model-loader-extra-config modelopt-quant moe-a2a-backend moe-dense-tp-size moe-dp-size
moe-runner-backend monokernel-backend num-continuous-decode-steps num-reserved-decode-tokens
numa-node offload-group-size offload-mode offload-num-in-group offload-prefetch-step
optimistic-prefill-attempts page-size paged-experts-num-resident pipeline-parallel-size
ple-offload-embedding pp-async-batch-depth pp-max-micro-batch-size pp-size pre-warm-nccl
prefill-attention-backend prefill-decode-interval prefill-decode-interval-min-bs
prefill-delayer-forward-passes-buckets prefill-delayer-max-delay-ms
prefill-delayer-max-delay-passes prefill-delayer-queue-min-ratio
prefill-delayer-token-usage-low-watermark prefill-delayer-wait-seconds-buckets
prefill-kv-cache-dequant-dtype prefill-max-requests prefill-only-disable-kv-cache
prefill-round-robin-balance priority-scheduling-preemption-threshold prompt-tokens-buckets
qsa-indexer-dtype quantization radix-eviction-policy radix-eviction-policy-config random-seed
reasoning-parser retraction-policy return-aux-hidden-state-layer-ids return-hidden-states-mode
return-input-ids return-output-ids rl-on-policy-target sampling-backend sampling-defaults
sampling-mask-max-tokens schedule-conservativeness schedule-low-priority-values-first
schedule-policy scheduler-recv-interval shared-experts-tp-size show-time-cost skip-server-warmup
skip-tokenizer-init sleep-on-idle sm-group-num soft-watchdog-timeout
speculative-accept-threshold-acc speculative-accept-threshold-single speculative-adaptive
speculative-algorithm speculative-attention-mode speculative-dflash-block-size
speculative-domino-candidate-pool-size speculative-draft-attention-backend
speculative-draft-kv-cache-dtype speculative-draft-model-quantization speculative-draft-sink-size
speculative-draft-window-size speculative-dsa-topk-backend
speculative-dspark-align-verify-tokens-to-graph-tier speculative-dspark-block-size
speculative-eagle-topk speculative-enable-w4a4-mxfp4-megamoe speculative-moe-a2a-backend
speculative-moe-runner-backend speculative-ngram-capacity
speculative-ngram-external-corpus-max-tokens speculative-ngram-external-sam-budget
speculative-ngram-match-type speculative-ngram-max-bfs-breadth speculative-ngram-max-trie-depth
speculative-ngram-min-bfs-breadth speculative-num-draft-tokens speculative-num-steps
speculative-use-block-verification speculative-use-rejection-sampling startup-weight-load-mode
stream-interval stream-output stream-response-default-include-usage strip-thinking-cache
swa-full-tokens-ratio swa-prefix-tails tbo-token-distribution-threshold tensor-parallel-size
tokenizer-backend tokenizer-mode tokenizer-worker-num tool-call-parser torch-compile-max-bs
torchao-config tp-size triton-attention-num-kv-splits triton-attention-reduce-in-fp32
triton-attention-split-tile-size watchdog-timeout weight-loader-disable-mmap
weight-loader-drop-cache-after-load weight-loader-prefetch-checkpoints
weight-loader-prefetch-num-threads weight-version
"""

_VARIABLES = (
    *("SGLANG_ENABLE_JIT_DEEPGEMM", "SGL_ENABLE_JIT_DEEPGEMM", "SGLANG_ENABLE_TORCH_COMPILE"),
    *("SGLANG_CPU_OMP_THREADS_BIND", "SGLANG_USE_CPU_ENGINE", "SGLANG_USE_AITER"),
    *("SGLANG_ENABLE_SPEC_V2", "SGLANG_SET_CPU_AFFINITY", "SGLANG_LOG_LEVEL"),
)

_FORMATS = frozenset(
    ("auto", "safetensors", "fastsafetensors", "dummy", "gguf", "bitsandbytes", "mistral")
)

HARMLESS = Harmless(
    flags=frozenset(_FLAGS.split()),
    values={
        "init-expert-location": frozenset(("trivial",)),  # or a file
        "load-format": _FORMATS,  # others unpickle, or fetch from elsewhere
        "log-requests-target": frozenset(("stdout",)),  # or a directory
        "speculative-draft-load-format": _FORMATS,
    },
    models=frozenset(("speculative-draft-model-path",)),
    variables=_VARIABLES,
)
