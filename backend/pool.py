"""The fork-join pool of generated code, as LLVM IR: it needs libc's threads and no compiler but LLVM.

`pool_ir` gives the text that is put before a network's kernels. C callers see `P_pool_create` and
`P_pool_destroy` (P is the network's name), kernels call `P_parallel`. All state is in the pool.

Threads meet at two gates (gate.py): workers wait at `start`, the caller of a fork at `done`.

    fork, by the caller                          worker `index`, forever
    write task and its arguments                 wait(start)
    deal, pending = workers
    open(start)                                  leave if there is no task: the pool is being destroyed
    share(0)                                     share(index)
    wait(done)                                   if --pending = 0: open(done)

Every worker passes through every generation of `start`, since the caller waits for all of them before
it opens the next. Counting `pending` down both acquires and releases, so the last worker has the
results of all others when it opens `done`. Who computes what is stealing.py's. Threads in excess of the
processors make every fork wait for sleep and wake-up.
"""

from __future__ import annotations

from string import Template

from cnnc.backend.gate import LINE_BYTES, SPINS, gate_ir
from cnnc.backend.stealing import DEAL, SEAT, SHARE

MAX_THREADS = 4096
"""Most threads of a pool: more is taken for a mistake."""

POOL_FIELDS = (
    ("start", "%$p.gate"),
    ("done", "%$p.gate"),
    ("pending", "i32"),  # workers that have not finished the current fork, on a cache line of its own
    ("gap", "[$gap x i8]"),
    ("threads", "i32"),  # running threads, with the caller
    ("images", "i64"),  # which tasks are told
    ("task", "ptr"),  # null tells the workers to leave
    ("args", "ptr"),
    ("scratch", "ptr"),  # of the workers, one behind the other, allocated behind the seats
    ("seats", "[0 x %$p.seat]"),  # one per thread, allocated behind the pool; the caller's, 0, is empty
)
"""The pool's structure: `$name` is a field's index in the texts below."""

TYPES = """\
%$p.pool = type { $pool_types }

declare i32 @posix_memalign(ptr, $word, $word)
declare void @free(ptr)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join($word, ptr)
"""

ALLOCATE = """\
; A pool of the calling thread alone, with seats for `seats` threads and scratch memory for all but the
; caller; null if there is no memory.
define internal ptr @$p.allocate(i32 %seats) nounwind {
entry:
  %memory = alloca ptr
  %end = getelementptr %$p.pool, ptr null, i32 0, i32 $seats, i32 %seats
  %filled = ptrtoint ptr %end to $word
  %over = add $word %filled, $last_of_line
  %offset = and $word %over, -$line_bytes
  %workers = sub i32 %seats, 1
  %first = inttoptr $word %offset to ptr
  %beyond = getelementptr [$scratch_bytes x i8], ptr %first, i32 %workers
  %bytes = ptrtoint ptr %beyond to $word
  %memory_error = call i32 @posix_memalign(ptr %memory, $word $line_bytes, $word %bytes)
  %has_memory = icmp eq i32 %memory_error, 0
  br i1 %has_memory, label %fill, label %fail

fill:
  %pool = load ptr, ptr %memory
  %start = getelementptr %$p.pool, ptr %pool, i32 0, i32 $start
  %done = getelementptr %$p.pool, ptr %pool, i32 0, i32 $done
  %threads_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $threads
  store i32 1, ptr %threads_at
  %scratch_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $scratch
  %scratch = getelementptr i8, ptr %pool, $word %offset
  store ptr %scratch, ptr %scratch_at
  %start_error = call i32 @$p.make_gate(ptr %start)
  %done_error = call i32 @$p.make_gate(ptr %done)
  %error = or i32 %start_error, %done_error
  %has_gates = icmp eq i32 %error, 0
  br i1 %has_gates, label %made, label %discard

made:
  ret ptr %pool

discard:
  call void @free(ptr %pool)
  br label %fail

fail:
  ret ptr null
}
"""

HIRE = """\
; Starts workers until the pool has `threads` threads; false when the system refuses one.
define internal i1 @$p.hire(ptr %pool, i32 %threads) nounwind {
entry:
  %threads_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $threads
  br label %next

next:
  %index = phi i32 [ 1, %entry ], [ %running, %hired ]
  %is_complete = icmp eq i32 %index, %threads
  br i1 %is_complete, label %end, label %launch

launch:
  %seat = getelementptr %$p.pool, ptr %pool, i32 0, i32 $seats, i32 %index
  %pool_at = getelementptr %$p.seat, ptr %seat, i32 0, i32 1
  %thread_at = getelementptr %$p.seat, ptr %seat, i32 0, i32 2
  %index_at = getelementptr %$p.seat, ptr %seat, i32 0, i32 3
  store ptr %pool, ptr %pool_at
  store i32 %index, ptr %index_at
  %error = call i32 @pthread_create(ptr %thread_at, ptr null, ptr @$p.worker, ptr %seat)
  %is_running = icmp eq i32 %error, 0
  br i1 %is_running, label %hired, label %end

hired:                                    ; workers read this only after the first generation opens
  %running = add i32 %index, 1
  store i32 %running, ptr %threads_at
  br label %next

end:
  ret i1 %is_complete
}
"""

CREATE = """\
; A pool of `threads` threads, the caller's included; null when they cannot be had.
define ptr @${p}_pool_create(i32 %threads) nounwind {
entry:
  %workers = sub i32 %threads, 1          ; as an unsigned number, too large for threads < 1
  %is_sane = icmp ult i32 %workers, $max_threads
  br i1 %is_sane, label %allocate, label %fail

allocate:
  %pool = call ptr @$p.allocate(i32 %threads)
  %has_pool = icmp ne ptr %pool, null
  br i1 %has_pool, label %hire, label %fail

hire:
  %is_complete = call i1 @$p.hire(ptr %pool, i32 %threads)
  br i1 %is_complete, label %made, label %undo

made:
  ret ptr %pool

undo:                                     ; a pool of the threads that did start
  call void @${p}_pool_destroy(ptr %pool)
  br label %fail

fail:
  ret ptr null
}
"""

DESTROY = """\
; Ends the workers, waits for them and frees the pool, which may be null. No fork may be running.
define void @${p}_pool_destroy(ptr %pool) nounwind {
entry:
  %has_pool = icmp ne ptr %pool, null
  br i1 %has_pool, label %dismiss, label %end

dismiss:
  %start = getelementptr %$p.pool, ptr %pool, i32 0, i32 $start
  %done = getelementptr %$p.pool, ptr %pool, i32 0, i32 $done
  %task_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $task
  %threads_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $threads
  %threads = load i32, ptr %threads_at
  store ptr null, ptr %task_at
  call void @$p.open(ptr %start)
  br label %next

next:
  %index = phi i32 [ 1, %dismiss ], [ %following, %join ]
  %is_left = icmp ult i32 %index, %threads
  br i1 %is_left, label %join, label %release

join:
  %thread_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $seats, i32 %index, i32 2
  %thread = load $word, ptr %thread_at
  call i32 @pthread_join($word %thread, ptr null)
  %following = add i32 %index, 1
  br label %next

release:
  call void @$p.drop_gate(ptr %start)
  call void @$p.drop_gate(ptr %done)
  call void @free(ptr %pool)
  br label %end

end:
  ret void
}
"""

PARALLEL = """\
; Runs task(args, begin, end, images, scratch) over 0..count, shared by the pool's threads, of which the
; calling one has `scratch` and each other its own; returns when all is done.
; Without a pool the calling thread runs all of it. Not inlined, lest each kernel's body be there twice.
define internal void @${p}_parallel(
    ptr %pool, ptr %task, ptr %args, i64 %count, i64 %images, ptr %scratch
) nounwind noinline {
entry:
  %has_pool = icmp ne ptr %pool, null
  br i1 %has_pool, label %measure, label %alone

measure:
  %threads_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $threads
  %threads = load i32, ptr %threads_at
  %workers = sub i32 %threads, 1
  %has_workers = icmp ne i32 %workers, 0
  br i1 %has_workers, label %fork, label %alone

alone:
  call void %task(ptr %args, i64 0, i64 %count, i64 %images, ptr %scratch)
  ret void

fork:
  %task_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $task
  %args_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $args
  %pending = getelementptr %$p.pool, ptr %pool, i32 0, i32 $pending
  %start = getelementptr %$p.pool, ptr %pool, i32 0, i32 $start
  %done = getelementptr %$p.pool, ptr %pool, i32 0, i32 $done
  %images_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $images
  call void @$p.deal(ptr %pool, i32 %threads, i64 %count)
  store i64 %images, ptr %images_at
  store ptr %task, ptr %task_at
  store ptr %args, ptr %args_at
  store atomic i32 %workers, ptr %pending monotonic, align 4
  %seen = load atomic i32, ptr %done monotonic, align 4
  call void @$p.open(ptr %start)
  call void @$p.share(ptr %pool, i32 0, ptr %scratch)
  call i32 @$p.wait(ptr %done, i32 %seen)
  ret void
}
"""

WORKER = """\
; A worker thread: runs its chunk of every generation until a generation has no task.
define internal ptr @$p.worker(ptr %seat) nounwind {
entry:
  %pool_at = getelementptr %$p.seat, ptr %seat, i32 0, i32 1
  %index_at = getelementptr %$p.seat, ptr %seat, i32 0, i32 3
  %index = load i32, ptr %index_at
  %pool = load ptr, ptr %pool_at
  %start = getelementptr %$p.pool, ptr %pool, i32 0, i32 $start
  %done = getelementptr %$p.pool, ptr %pool, i32 0, i32 $done
  %pending = getelementptr %$p.pool, ptr %pool, i32 0, i32 $pending
  %task_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $task
  %scratch_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $scratch
  %all_scratch = load ptr, ptr %scratch_at
  %place = sub i32 %index, 1
  %scratch = getelementptr [$scratch_bytes x i8], ptr %all_scratch, i32 %place
  br label %idle

idle:
  %seen = phi i32 [ 0, %entry ], [ %now, %work ], [ %now, %report ]
  %now = call i32 @$p.wait(ptr %start, i32 %seen)
  %task = load ptr, ptr %task_at
  %has_task = icmp ne ptr %task, null
  br i1 %has_task, label %work, label %leave

work:
  call void @$p.share(ptr %pool, i32 %index, ptr %scratch)
  %unfinished = atomicrmw sub ptr %pending, i32 1 acq_rel, align 4
  %is_last = icmp eq i32 %unfinished, 1
  br i1 %is_last, label %report, label %idle

report:
  call void @$p.open(ptr %done)
  br label %idle

leave:
  ret ptr null
}
"""

PARTS = (SEAT, TYPES, ALLOCATE, HIRE, CREATE, DESTROY, DEAL, SHARE, PARALLEL, WORKER)


def pool_ir(prefix: str, pointer_bits: int = 64, spins: int = SPINS, scratch_bytes: int = 0) -> str:
    """The pool's types and functions, without target lines. `prefix` is a C identifier.

    Exported, for C:

        ptr @P_pool_create(i32 threads)     threads with the calling one; null when there is no memory,
                                            a thread cannot be started, or not 1 <= threads <= 4096
        void @P_pool_destroy(ptr pool)      ends its threads; null does nothing

    Internal, for kernels:

        void @P_parallel(ptr pool, ptr task, ptr args, i64 count, i64 images, ptr scratch)

    calls `void task(ptr args, i64 begin, i64 end, i64 images, ptr scratch)` with ranges that together are
    0..count, which is below 2^32, each once and none empty, on as many threads as the pool has, and returns
    when all have returned and their stores can be seen. With a null pool or one thread it is
    `task(args, 0, count, images, scratch)`. The calling thread has the `scratch` that it gives, every
    other one `scratch_bytes` of the pool's own, aligned as cache lines are. A task must not fork, and a pool
    serves one fork at a time. A child process made by fork() has none of the threads and must not touch its
    parent's pools.

    `pointer_bits` is the target's, also of its size_t and pthread_t. `spins` is how often a waiting
    thread looks before it sleeps.
    """
    values = {
        "p": prefix,
        "word": f"i{pointer_bits}",
        "gap": LINE_BYTES - 4,
        "seat_gap": LINE_BYTES - 12 - pointer_bits // 4,
        "line_bytes": LINE_BYTES,
        "last_of_line": LINE_BYTES - 1,
        "scratch_bytes": -(-scratch_bytes // LINE_BYTES) * LINE_BYTES,
        "max_threads": MAX_THREADS,
    }
    fields = {name: index for index, (name, _) in enumerate(POOL_FIELDS) if name != "gap"}
    types = Template(", ".join(kind for _, kind in POOL_FIELDS)).substitute(values)
    parts = [Template(part).substitute(values, **fields, pool_types=types) for part in PARTS]
    return "\n".join([gate_ir(prefix, spins), *parts])
