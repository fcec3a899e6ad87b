"""Gates of generated code, as LLVM IR: one thread opens, others wait, awake at first and then asleep.

`gate_ir` gives the part of the fork-join pool (pool.py) in which threads wait for each other.

A gate is a word, a mutex and a condition. The word is an even generation number plus a lowest bit
that says: somebody sleeps here.

    wait(gate, seen)    look at the word until its generation is not `seen`; after many looks, sleep
    sleep(gate, seen)   holding the mutex, exchange `seen` for `seen | 1`, and sleep on the condition
                        while the generation stays; if it has moved on, return
    open(gate)          put the next generation, lowest bit clear, in place of the word; if the old one
                        had the bit, take the mutex and wake all

No wake-up is lost: bit and generation share a word, so either the sleeper's exchange fails because
the gate has opened, or `open` sees the bit and then gets the mutex only once the sleeper is asleep.
While all threads are awake, no mutex is taken and no system call made. What a thread stored before
`open` can be seen after the `wait` that it ends. Generations are only compared for equality, so they
may wrap.

Between looks the processor is not given up: where other programs compute too, Linux takes a time slice
for each sched_yield, and forks took 2 to 4 ms with it instead of the 0.1 ms of going to sleep.
"""

from __future__ import annotations

from string import Template

SPINS = 5000
"""Looks at a word before sleeping, about 10 nanoseconds each: together about what a wake-up takes."""

LINE_BYTES = 128
"""What is kept apart: two cache lines of 64 bytes, which x86 fetches in pairs, or one of Apple's."""

PTHREAD_BYTES = 64
"""Room for a pthread_mutex_t or a pthread_cond_t: glibc and musl need up to 48 bytes, macOS up to 64."""

TYPES = """\
%$p.gate = type { i32, [$gap x i8], [$pthread_bytes x i8], [$pthread_bytes x i8] }  ; word, mutex, condition

declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_mutex_destroy(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i32 @pthread_cond_destroy(ptr)
"""

MAKE = """\
; Makes a closed gate; not 0 if the system refuses. Neither glibc, musl nor macOS allocates for it.
define internal i32 @$p.make_gate(ptr %gate) nounwind {
  %mutex = getelementptr %$p.gate, ptr %gate, i32 0, i32 2
  %condition = getelementptr %$p.gate, ptr %gate, i32 0, i32 3
  store i32 0, ptr %gate
  %mutex_error = call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  %condition_error = call i32 @pthread_cond_init(ptr %condition, ptr null)
  %error = or i32 %mutex_error, %condition_error
  ret i32 %error
}

define internal void @$p.drop_gate(ptr %gate) nounwind {
  %mutex = getelementptr %$p.gate, ptr %gate, i32 0, i32 2
  %condition = getelementptr %$p.gate, ptr %gate, i32 0, i32 3
  call i32 @pthread_cond_destroy(ptr %condition)
  call i32 @pthread_mutex_destroy(ptr %mutex)
  ret void
}
"""

OPEN = """\
; Begins the next generation and wakes who sleeps. By one thread at a time.
define internal void @$p.open(ptr %gate) nounwind {
entry:
  %now = load atomic i32, ptr %gate monotonic, align 4
  %filled = or i32 %now, 1                ; the same sum whether or not a sleeper sets the bit meanwhile
  %next = add i32 %filled, 1
  %old = atomicrmw xchg ptr %gate, i32 %next release, align 4
  %has_sleepers = trunc i32 %old to i1
  br i1 %has_sleepers, label %ring, label %opened

ring:                                     ; the mutex is free once the sleepers are in cond_wait
  %mutex = getelementptr %$p.gate, ptr %gate, i32 0, i32 2
  %condition = getelementptr %$p.gate, ptr %gate, i32 0, i32 3
  call i32 @pthread_mutex_lock(ptr %mutex)
  call i32 @pthread_cond_broadcast(ptr %condition)
  call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %opened

opened:
  ret void
}
"""

WAIT = """\
; Waits until the generation is not `seen`, and gives the new one.
define internal i32 @$p.wait(ptr %gate, i32 %seen) nounwind {
entry:
  br label %look

look:
  %looks = phi i32 [ 0, %entry ], [ %looked, %again ]
  %value = load atomic i32, ptr %gate acquire, align 4
  %generation = and i32 %value, -2
  %is_new = icmp ne i32 %generation, %seen
  br i1 %is_new, label %passed, label %missed

missed:
  %looked = add i32 %looks, 1
  %is_patient = icmp ult i32 %looked, $spins
  br i1 %is_patient, label %again, label %rest

again:                                    ; takes tens of cycles, in which a core's other thread has its units
  fence seq_cst
  br label %look

rest:
  %woken = call i32 @$p.sleep(ptr %gate, i32 %seen)
  br label %passed

passed:
  %result = phi i32 [ %generation, %look ], [ %woken, %rest ]
  ret i32 %result
}
"""

SLEEP = """\
; As wait, asleep from the beginning.
define internal i32 @$p.sleep(ptr %gate, i32 %seen) nounwind noinline {
entry:
  %mutex = getelementptr %$p.gate, ptr %gate, i32 0, i32 2
  %condition = getelementptr %$p.gate, ptr %gate, i32 0, i32 3
  %marked = or i32 %seen, 1
  call i32 @pthread_mutex_lock(ptr %mutex)
  br label %look

look:                                     ; gives the value found, also if the bit is set or the gate open
  %exchange = cmpxchg ptr %gate, i32 %seen, i32 %marked acquire acquire, align 4
  %value = extractvalue { i32, i1 } %exchange, 0
  %generation = and i32 %value, -2
  %is_new = icmp ne i32 %generation, %seen
  br i1 %is_new, label %woken, label %doze

doze:
  call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %look

woken:
  call i32 @pthread_mutex_unlock(ptr %mutex)
  ret i32 %generation
}
"""


def gate_ir(prefix: str, spins: int = SPINS) -> str:
    """The type and the internal functions of gates; `spins` is how often `wait` looks before it sleeps.

    %P.gate                            to be put at a multiple of LINE_BYTES, of which it fills two
    i32 @P.make_gate(ptr gate)         0, or an error number; the generation is 0
    void @P.drop_gate(ptr gate)        when no other thread can be in wait or open
    void @P.open(ptr gate)             by one thread at a time
    i32 @P.wait(ptr gate, i32 seen)    gives the new generation
    """
    values = {
        "p": prefix,
        "spins": spins,
        "gap": LINE_BYTES - 4,
        "pthread_bytes": PTHREAD_BYTES,
    }
    return "\n".join(Template(part).substitute(values) for part in (TYPES, MAKE, OPEN, WAIT, SLEEP))
