"""What is wrong with the machine, whatever the engine: memory, GPU, driver, disk, rights, ports."""

from cortex_orchestrator.domain.diagnosis.cause import cause

CAUSES = (
    cause(
        "port_in_use",
        r"couldn't bind|address already in use|failed to bind",
        "The port of the engine was taken by somebody else.",
        "Nothing: the next attempt takes another port.",
    ),
    cause(
        "shared_memory",
        r"Bus error|/dev/shm.*(No space|Errno 28)|(No space|Errno 28).*/dev/shm|unable to (open|resize) shared memory"
        r"|unable to write to file </torch_|Error while creating shared memory segment",
        "The engine's shared memory is too small.",
        "Give the container more (/dev/shm); Cortex gives vLLM 8 GiB, a Swarm service needs a tmpfs mount.",
    ),
    cause(
        "driver_too_old",
        r"driver version is insufficient|driver on your system is too old|unsupported toolchain|unsatisfied condition: cuda"
        r"|forward compatibility was attempted on non supported HW|requirement error: .*cuda",
        "The NVIDIA driver is older than the engine's CUDA needs.",
        "Update the driver of the host, or use an image made for an older CUDA (engine_image).",
    ),
    cause(
        "gpu_unsupported",
        r"no kernel image is available|is not compatible with the current PyTorch|compute capability (?:of )?at least"
        r"|only supported on GPUs with compute capability|requires (?:a )?(?:GPU|device)s? with (?:compute )?capability"
        r"|arch(?:itecture)? sm_\d+ is not supported|compiled for: .* which (?:are|is) not compatible",
        "The engine was not built for this GPU (compute capability).",
        "Use an image built for it, another quantization or dtype, or another GPU.",
    ),
    cause(
        "gpu_out_of_memory",
        r"cudaMalloc failed|CUDA out of memory|CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY|hipErrorOutOfMemory"
        r"|ErrorOutOfDeviceMemory|torch\.(?:cuda\.)?OutOfMemoryError"
        r"|(?:unable to|failed to) allocate (?:CUDA|ROCm|Vulkan|SYCL|MUSA)\d* ",
        "The GPU has too little free memory for the model and its context.",
        "Lower context_size (max_model_len), parallel_slots (max_num_seqs) or ngl, use a smaller quantization, or more GPUs.",
    ),
    cause(
        "gpu_fault",
        r"illegal memory access|device-side assert|uncorrectable ECC|fallen off the bus|unspecified launch failure"
        r"|cudaErrorHardwareStackError|ErrorDeviceLost|\bXid\b",
        "The GPU reported a fault while computing.",
        "Look at the host's kernel log (Xid); if it comes back, test or replace the GPU.",
    ),
    cause(
        "nccl_failed",
        r"NCCL error|nccl(?:UnhandledCuda|System|Internal|Remote|InvalidUsage)Error|NCCL WARN .*(?:fail|error)",
        "The GPUs could not talk to each other (NCCL).",
        "Set NCCL_DEBUG=INFO in extra_env to see why; disable_custom_all_reduce or NCCL_P2P_DISABLE=1 often helps.",
    ),
    cause(
        "gpu_missing",
        r"no CUDA-capable device|No CUDA GPUs are available|Found no NVIDIA driver|Failed to infer device type"
        r"|libcuda\.so\.1: cannot open|CUDA unknown error|nvml.*(?:not found|Driver Not Loaded)",
        "The engine sees no GPU.",
        "Check the driver (nvidia-smi) and the NVIDIA container toolkit of the node, or use an image for CPU.",
    ),
    cause(
        "disk_full",
        r"No space left on device|Errno 28|Disk quota exceeded",
        "The disk is full.",
        "Free space where models and caches are kept (the hub cache, the models folder, the Docker data folder).",
    ),
    cause(
        "too_many_files",
        r"Too many open files",
        "The engine may not open more files.",
        "Raise the limit of open files (nofile) of the node.",
    ),
    cause(
        "file_unreadable",
        r"(?:failed to open|cannot open|PermissionError|Errno 13|denied).*permission denied|PermissionError|Errno 13"
        r"|\(Permission denied\)",
        "The engine may not read a file of the model.",
        "Make the file and its folders readable for others (chmod -R o+rX): engines in containers run as another user.",
    ),
    cause(
        "read_only",
        r"Read-only file system",
        "The engine tried to write where it may not.",
        "Leave out the option that writes, or point it below /tmp.",
    ),
    cause(
        "host_out_of_memory",
        r"DefaultCPUAllocator: can't allocate memory|std::bad_alloc|Cannot allocate memory|\bMemoryError\b"
        r"|unable to allocate \w+ buffer|failed to allocate (?:\w+ )*buffer|failed to allocate memory|failed to allocate \w+ for",
        "The host has too little free memory for the model and its context.",
        "Lower context_size, parallel_slots or cache_ram_mib, raise the memory limit, or move other models away.",
    ),
    cause(
        "library_missing",
        r"error while loading shared libraries: (?P<name>\S+?):|version `(?P<other>GLIBC\S*)' not found|undefined symbol: \S+",
        "The engine's program does not fit this system: a library is missing or too old.",
        "Install what the engine's line names, or use another build.",
    ),
)
