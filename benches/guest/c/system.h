/* What the rows and the program need of the operating system. */
#ifndef SYSTEM_H
#define SYSTEM_H

/* The argument on which the program exits at once, with SYSTEM_STATUS. */
#define SYSTEM_EXIT "exit"
#define SYSTEM_STATUS 7

/* An empty file in the working directory, its name already gone. Does not return without. */
int system_scratch(const char *name);
/* Keeps this process and its children on the processor it is on. */
void system_stay(void);
/* Lets it use all again. */
void system_roam(void);
/* For process 1: file systems, a working directory in memory, the serial line as standard input and output. */
void system_init(void);
/* For process 1: switches the machine off. */
void system_power_off(void);
/* CLOCK_MONOTONIC and CLOCK_BOOTTIME (what /proc/uptime shows), in nanoseconds. */
unsigned long system_now(void);
unsigned long system_uptime(void);
int system_has_avx2(void);

#endif
