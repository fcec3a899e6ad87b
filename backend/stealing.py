"""How the threads of a pool share the iterations of a fork, as LLVM IR: part of pool.py.

Each thread has a range of its own, the same in every fork of as many iterations, so that its caches hold what
it will read. It takes a quarter of what is left of it at a time, from the front. A thread that is through
takes from the back of others' ranges what they have not begun: threads are never equally fast, for caches,
memory, interrupts and other programs, and each fork would wait for the slowest. Iterations depend on nothing
but their number, so results are the same whoever computes them. (Blumofe and Leiserson 1999, "Scheduling
multithreaded computations by work stealing"; a range that only shrinks is one word, begin and end.)
"""

from __future__ import annotations

SEAT = """\
; Of a thread, a cache line: what it has still to do, begin and end in 32 bits each; pool, pthread_t, index.
%$p.seat = type { i64, ptr, $word, i32, [$seat_gap x i8] }
"""

DEAL = """\
; Puts into the seats what each thread has to do: count * index / threads .. count * (index + 1) / threads.
define internal void @$p.deal(ptr %pool, i32 %threads, i64 %count) nounwind {
entry:
  %chunks = zext i32 %threads to i64
  br label %next

next:
  %index = phi i32 [ 0, %entry ], [ %following, %next ]
  %begin = phi i64 [ 0, %entry ], [ %end, %next ]
  %following = add i32 %index, 1
  %behind = zext i32 %following to i64
  %scaled_end = mul i64 %count, %behind
  %end = udiv i64 %scaled_end, %chunks
  %high = shl i64 %end, 32
  %range = or i64 %high, %begin
  %range_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $seats, i32 %index, i32 0
  store atomic i64 %range, ptr %range_at monotonic, align 8
  %is_last = icmp eq i32 %following, %threads
  br i1 %is_last, label %dealt, label %next

dealt:
  ret void
}
"""

SHARE = """\
; Runs what thread `index` has to do, from the front, and then from the back what others have not begun.
; A quarter of what is left is taken at a time.
define internal void @$p.share(ptr %pool, i32 %index, ptr %scratch) nounwind {
entry:
  %threads_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $threads
  %images_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $images
  %task_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $task
  %args_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $args
  %threads = load i32, ptr %threads_at
  %images = load i64, ptr %images_at
  %task = load ptr, ptr %task_at
  %args = load ptr, ptr %args_at
  br label %visit

visit:
  %visited = phi i32 [ 0, %entry ], [ %following, %leave ]
  %is_own = icmp eq i32 %visited, 0
  %sum = add i32 %index, %visited
  %wrapped = sub i32 %sum, %threads
  %wraps = icmp uge i32 %sum, %threads
  %whose = select i1 %wraps, i32 %wrapped, i32 %sum
  %range_at = getelementptr %$p.pool, ptr %pool, i32 0, i32 $seats, i32 %whose, i32 0
  br label %look

look:
  %range = load atomic i64, ptr %range_at monotonic, align 8
  %begin = and i64 %range, 4294967295
  %end = lshr i64 %range, 32
  %left = sub i64 %end, %begin
  %is_empty = icmp eq i64 %left, 0
  br i1 %is_empty, label %leave, label %take

take:
  %rounded = add i64 %left, 3
  %taken = lshr i64 %rounded, 2
  %rest = sub i64 %end, %taken
  %first = select i1 %is_own, i64 %begin, i64 %rest
  %last = add i64 %first, %taken
  %new_begin = select i1 %is_own, i64 %last, i64 %begin
  %new_end = select i1 %is_own, i64 %end, i64 %rest
  %high = shl i64 %new_end, 32
  %remains = or i64 %high, %new_begin
  %exchange = cmpxchg ptr %range_at, i64 %range, i64 %remains monotonic monotonic, align 8
  %is_taken = extractvalue { i64, i1 } %exchange, 1
  br i1 %is_taken, label %run, label %look

run:
  call void %task(ptr %args, i64 %first, i64 %last, i64 %images, ptr %scratch)
  br label %look

leave:
  %following = add i32 %visited, 1
  %is_left = icmp ult i32 %following, %threads
  br i1 %is_left, label %visit, label %shared

shared:
  ret void
}
"""
