// The gates into the nucleus and the way out of it. The only code that runs between user level and Rust.
//
// Each of the 256 vectors has a stub, 16 bytes after the one before, that leaves vector and error code on the stack.
// From user level the processor has taken its stack pointer from TSS.RSP0, and RSP0 points to the end of the frame in
// the running process's descriptor (process.rs): what is pushed here lands where it is to be saved. One stack for all
// of the nucleus is then enough, because a handler runs to its end: `resume` is an ordinary function that returns
// to its caller when the process it was given has been interrupted.

.set FPU, 192                               // Context: frame (176 bytes), padding, then the XSAVE area

.section .text.entry, "ax"
.balign 16
.global entry_stubs
entry_stubs:
.set vector, 0
.rept 256
    .balign 16
    // #DF #TS #NP #SS #GP #PF #AC #CP bring an error code of their own.
    .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21)
    .else
    pushq $0
    .endif
    pushq $vector
    jmp interrupted
    .set vector, vector + 1
.endr

// SYSCALL: the processor switches neither stack nor pushes anything; RCX has the return address, R11 the flags.
.balign 16
.global entry_syscall
entry_syscall:
    movq %rsp, syscall_user_rsp(%rip)
    movq task_state + 4(%rip), %rsp         // TSS.RSP0
    pushq $0x23                             // SS: user data
    pushq syscall_user_rsp(%rip)
    pushq %r11
    pushq $0x2B                             // CS: user code
    pushq %rcx
    pushq $0
    pushq $0x100                            // no vector: one past the last
    jmp from_user

interrupted:
    testb $3, 24(%rsp)                      // CS.RPL: the level that was interrupted
    jz from_kernel

// Step 1 of the switch: the whole state goes into the descriptor.
from_user:
    pushq %rax
    pushq %rbx
    pushq %rcx
    pushq %rdx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    cmpb $0, xsave_enabled(%rip)
    je 1f
    movl $-1, %eax
    movl $-1, %edx
    xsave64 FPU(%rsp)
    jmp 2f
1:  fxsave64 FPU(%rsp)
2:  movq kernel_rsp(%rip), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret                                     // from `resume`

// Step 3: resume(context: RDI) loads what step 1 saved; IRETQ jumps to the return address and drops to user level.
.balign 16
.global resume
resume:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, kernel_rsp(%rip)
    cmpb $0, xsave_enabled(%rip)
    je 1f
    movl $-1, %eax
    movl $-1, %edx
    xrstor64 FPU(%rdi)
    jmp 2f
1:  fxrstor64 FPU(%rdi)
2:  movq %rdi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rdx
    popq %rcx
    popq %rbx
    popq %rax
    addq $16, %rsp                          // vector, error code
    iretq

// The nucleus itself was interrupted. By an interrupt: it was waiting in `wait_for_interrupt`, note which and go
// on with interrupts off. By an exception: that is an error in the nucleus.
from_kernel:
    cmpq $32, (%rsp)
    jb 1f
    popq woken_by(%rip)
    addq $8, %rsp
    andq $~0x200, 16(%rsp)
    iretq
1:  pushq %rax
    pushq %rbx
    pushq %rcx
    pushq %rdx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    andq $-16, %rsp
    call kernel_exception

.section .bss.entry, "aw", @nobits
.balign 8
kernel_rsp: .skip 8
syscall_user_rsp: .skip 8
.global woken_by, xsave_enabled
woken_by: .skip 8
xsave_enabled: .skip 8
