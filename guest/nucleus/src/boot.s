// The first instructions: from 32-bit protected mode without paging to Rust in 64-bit mode.
//
// Both boot protocols leave the processor in the same condition (flat 32-bit segments, paging and interrupts off) with
// EBX pointing to what the boot loader has to say: PVH's hvm_start_info or Multiboot's information structure.

.set KERNEL, 0xFFFFFFFF80000000

// Multiboot 0.6.96, 3.1: memory map wanted (bit 1), addresses given (bit 16).
.section .multiboot, "a"
.balign 4
multiboot:
    .long 0x1BADB002, 0x10002, -(0x1BADB002 + 0x10002)
    .long multiboot - KERNEL, image_start - KERNEL, data_end - KERNEL, image_end - KERNEL
    .long entry32 - KERNEL

// PVH: note 18, XEN_ELFNOTE_PHYS32_ENTRY.
.section .note.Xen, "a", @note
.balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long entry32 - KERNEL

.section .boot.text, "ax"
.code32
.global entry32
entry32:
    cli
    cld
    movl %eax, %ebp                         // Multiboot's magic, if it is Multiboot
    // The first 4 GiB, by 2 MiB pages, three times: where they are, in the direct map, and (1 GiB) under the kernel.
    movl $(boot_pdpt - KERNEL + 0x3), %eax
    movl %eax, boot_pml4 - KERNEL
    movl %eax, boot_pml4 - KERNEL + 256 * 8
    movl $(boot_pdpt_kernel - KERNEL + 0x3), boot_pml4 - KERNEL + 511 * 8
    movl $(boot_pd - KERNEL + 0x3), boot_pdpt_kernel - KERNEL + 510 * 8
    movl $(boot_pd - KERNEL + 0x3), %eax
    movl $(boot_pdpt - KERNEL), %edi
    movl $4, %ecx
1:  movl %eax, (%edi)
    addl $0x1000, %eax
    addl $8, %edi
    loop 1b
    movl $0x83, %eax                        // present, writable, 2 MiB
    movl $(boot_pd - KERNEL), %edi
    movl $2048, %ecx
2:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 2b
    // Long mode: CR4.PAE (and PGE, OSFXSR, OSXMMEXCPT), CR3, EFER.LME (and SCE, NXE), then CR0.PG (and WP, NE, MP).
    movl $0x6A0, %eax
    movl %eax, %cr4
    movl $(boot_pml4 - KERNEL), %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx
    rdmsr
    orl $0x901, %eax
    wrmsr
    movl %cr0, %eax
    andl $0x9FFFFFF3, %eax                  // EM and TS off, caches on
    orl $0x80010023, %eax
    movl %eax, %cr0
    lgdt boot_gdt_pointer - KERNEL
    ljmp $8, $(entry64 - KERNEL)

.code64
entry64:
    xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    movq $kernel_stack_top, %rsp
    movl %ebp, %edi
    movl %ebx, %esi
    xorl %ebp, %ebp
    pushq $0
    movq $kernel_main, %rax
    jmp *%rax

.balign 8
boot_gdt:
    .quad 0, 0x00AF9B000000FFFF             // null, 64-bit code
boot_gdt_pointer:
    .word 15
    .long boot_gdt - KERNEL

.section .bss.boot, "aw", @nobits
.balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pdpt_kernel: .skip 4096
boot_pd: .skip 4096 * 4
.global kernel_stack_guard, kernel_stack_top
kernel_stack_guard: .skip 4096              // unmapped later: an overflow ends in #DF, not in other data
.skip 65536
kernel_stack_top:
