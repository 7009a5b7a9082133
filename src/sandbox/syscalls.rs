//! Which system calls a command may make: data.
//!
//! These are the facts of Docker's default profile, resolved for the 14 capabilities that a command has (so `chroot` is in,
//! `mount` and `setns` are out) and for a kernel of 4.8 or newer (so `ptrace` is in). Calls that depend on an argument are
//! apart, see [`Conditional`]. Numbers are the kernel's, from its system call tables; [`N`] where an architecture has no such
//! call. Columns: x86-64, i386, x32 (without its marker bit), arm64, arm.

/// "Has no such call".
pub(super) const N: u32 = u32::MAX;

/// The columns of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    I386,
    X32,
    Arm64,
    Arm,
}

/// Calls that are allowed for some values of their arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conditional {
    /// No new namespace.
    Clone,
    /// Answered "no such call", so that callers take `clone`: its flags are behind a pointer, which no filter can follow.
    Clone3,
    /// Not AF_ALG, not AF_VSOCK.
    Socket,
    /// Linux of either width, with or without UNAME26; and the question which it is.
    Personality,
    /// Not the character device 0:0, by which overlayfs says that a name is deleted. It refuses to make one; a plain directory
    /// that is a root must not take one either.
    Mknod,
    Mknodat,
}

pub(super) const CONDITIONAL: [(Conditional, [u32; 5]); 6] = [
    (Conditional::Clone, [56, 120, 56, 220, 120]),
    (Conditional::Clone3, [435, 435, 435, 435, 435]),
    (Conditional::Socket, [41, 359, 41, 198, 281]),
    (Conditional::Personality, [135, 136, 135, 92, 136]),
    (Conditional::Mknod, [133, 14, 133, N, 14]),
    (Conditional::Mknodat, [259, 297, 259, 33, 324]),
];

#[rustfmt::skip]
pub(super) const ALLOWED: &[[u32; 5]] = &[
    [   43,     N,    43,   202,   285], // accept
    [  288,   364,   288,   242,   366], // accept4
    [   21,    33,    21,     N,    33], // access
    [  159,   124,   159,   171,   124], // adjtimex
    [   37,    27,    37,     N,     N], // alarm
    [  158,   384,   158,     N,     N], // arch_prctl
    [    N,     N,     N,     N,   270], // arm_fadvise64_64
    [    N,     N,     N,     N,   341], // arm_sync_file_range
    [   49,   361,    49,   200,   282], // bind
    [    N,     N,     N,     N, 0xf0001], // breakpoint
    [   12,    45,    12,   214,    45], // brk
    [    N,     N,     N,     N, 0xf0002], // cacheflush
    [  451,   451,   451,   451,   451], // cachestat
    [  125,   184,   125,    90,   184], // capget
    [  126,   185,   126,    91,   185], // capset
    [   80,    12,    80,    49,    12], // chdir
    [   90,    15,    90,     N,    15], // chmod
    [   92,   182,    92,     N,   182], // chown
    [    N,   212,     N,     N,   212], // chown32
    [  161,    61,   161,    51,    61], // chroot
    [  305,   343,   305,   266,   372], // clock_adjtime
    [    N,   405,     N,     N,   405], // clock_adjtime64
    [  229,   266,   229,   114,   264], // clock_getres
    [    N,   406,     N,     N,   406], // clock_getres_time64
    [  228,   265,   228,   113,   263], // clock_gettime
    [    N,   403,     N,     N,   403], // clock_gettime64
    [  230,   267,   230,   115,   265], // clock_nanosleep
    [    N,   407,     N,     N,   407], // clock_nanosleep_time64
    [    3,     6,     3,    57,     6], // close
    [  436,   436,   436,   436,   436], // close_range
    [   42,   362,    42,   203,   283], // connect
    [  326,   377,   326,   285,   391], // copy_file_range
    [   85,     8,    85,     N,     8], // creat
    [   32,    41,    32,    23,    41], // dup
    [   33,    63,    33,     N,    63], // dup2
    [  292,   330,   292,    24,   358], // dup3
    [  213,   254,   213,     N,   250], // epoll_create
    [  291,   329,   291,    20,   357], // epoll_create1
    [  233,   255,   233,    21,   251], // epoll_ctl
    [  214,     N,     N,     N,     N], // epoll_ctl_old
    [  281,   319,   281,    22,   346], // epoll_pwait
    [  441,   441,   441,   441,   441], // epoll_pwait2
    [  232,   256,   232,     N,   252], // epoll_wait
    [  215,     N,     N,     N,     N], // epoll_wait_old
    [  284,   323,   284,     N,   351], // eventfd
    [  290,   328,   290,    19,   356], // eventfd2
    [   59,    11,   520,   221,    11], // execve
    [  322,   358,   545,   281,   387], // execveat
    [   60,     1,    60,    93,     1], // exit
    [  231,   252,   231,    94,   248], // exit_group
    [  269,   307,   269,    48,   334], // faccessat
    [  439,   439,   439,   439,   439], // faccessat2
    [  221,   250,   221,   223,     N], // fadvise64
    [    N,   272,     N,     N,     N], // fadvise64_64
    [  285,   324,   285,    47,   352], // fallocate
    [  301,   339,   301,   263,   368], // fanotify_mark
    [   81,   133,    81,    50,   133], // fchdir
    [   91,    94,    91,    52,    94], // fchmod
    [  268,   306,   268,    53,   333], // fchmodat
    [  452,   452,   452,   452,   452], // fchmodat2
    [   93,    95,    93,    55,    95], // fchown
    [    N,   207,     N,     N,   207], // fchown32
    [  260,   298,   260,    54,   325], // fchownat
    [   72,    55,    72,    25,    55], // fcntl
    [    N,   221,     N,     N,   221], // fcntl64
    [   75,   148,    75,    83,   148], // fdatasync
    [  193,   231,   193,    10,   231], // fgetxattr
    [  196,   234,   196,    13,   234], // flistxattr
    [   73,   143,    73,    32,   143], // flock
    [   57,     2,    57,     N,     2], // fork
    [  199,   237,   199,    16,   237], // fremovexattr
    [  190,   228,   190,     7,   228], // fsetxattr
    [    5,   108,     5,    80,   108], // fstat
    [    N,   197,     N,     N,   197], // fstat64
    [    N,   300,     N,     N,   327], // fstatat64
    [  138,   100,   138,    44,   100], // fstatfs
    [    N,   269,     N,     N,   267], // fstatfs64
    [   74,   118,    74,    82,   118], // fsync
    [   77,    93,    77,    46,    93], // ftruncate
    [    N,   194,     N,     N,   194], // ftruncate64
    [  202,   240,   202,    98,   240], // futex
    [  456,   456,   456,   456,   456], // futex_requeue
    [    N,   422,     N,     N,   422], // futex_time64
    [  455,   455,   455,   455,   455], // futex_wait
    [  449,   449,   449,   449,   449], // futex_waitv
    [  454,   454,   454,   454,   454], // futex_wake
    [  261,   299,   261,     N,   326], // futimesat
    [  274,   312,   531,   100,   339], // get_robust_list
    [  211,   244,     N,     N,     N], // get_thread_area
    [  309,   318,   309,   168,   345], // getcpu
    [   79,   183,    79,    17,   183], // getcwd
    [   78,   141,    78,     N,   141], // getdents
    [  217,   220,   217,    61,   217], // getdents64
    [  108,    50,   108,   177,    50], // getegid
    [    N,   202,     N,     N,   202], // getegid32
    [  107,    49,   107,   175,    49], // geteuid
    [    N,   201,     N,     N,   201], // geteuid32
    [  104,    47,   104,   176,    47], // getgid
    [    N,   200,     N,     N,   200], // getgid32
    [  115,    80,   115,   158,    80], // getgroups
    [    N,   205,     N,     N,   205], // getgroups32
    [   36,   105,    36,   102,   105], // getitimer
    [   52,   368,    52,   205,   287], // getpeername
    [  121,   132,   121,   155,   132], // getpgid
    [  111,    65,   111,     N,    65], // getpgrp
    [   39,    20,    39,   172,    20], // getpid
    [  110,    64,   110,   173,    64], // getppid
    [  140,    96,   140,   141,    96], // getpriority
    [  318,   355,   318,   278,   384], // getrandom
    [  120,   171,   120,   150,   171], // getresgid
    [    N,   211,     N,     N,   211], // getresgid32
    [  118,   165,   118,   148,   165], // getresuid
    [    N,   209,     N,     N,   209], // getresuid32
    [   97,    76,    97,   163,     N], // getrlimit
    [   98,    77,    98,   165,    77], // getrusage
    [  124,   147,   124,   156,   147], // getsid
    [   51,   367,    51,   204,   286], // getsockname
    [   55,   365,   542,   209,   295], // getsockopt
    [  186,   224,   186,   178,   224], // gettid
    [   96,    78,    96,   169,    78], // gettimeofday
    [  102,    24,   102,   174,    24], // getuid
    [    N,   199,     N,     N,   199], // getuid32
    [  191,   229,   191,     8,   229], // getxattr
    [  464,   464,   464,   464,   464], // getxattrat
    [  254,   292,   254,    27,   317], // inotify_add_watch
    [  253,   291,   253,     N,   316], // inotify_init
    [  294,   332,   294,    26,   360], // inotify_init1
    [  255,   293,   255,    28,   318], // inotify_rm_watch
    [  210,   249,   210,     3,   247], // io_cancel
    [  207,   246,   207,     1,   244], // io_destroy
    [  208,   247,   208,     4,   245], // io_getevents
    [  333,   385,   333,   292,   399], // io_pgetevents
    [    N,   416,     N,     N,   416], // io_pgetevents_time64
    [  206,   245,   543,     0,   243], // io_setup
    [  209,   248,   544,     2,   246], // io_submit
    [   16,    54,   514,    29,    54], // ioctl
    [  252,   290,   252,    31,   315], // ioprio_get
    [  251,   289,   251,    30,   314], // ioprio_set
    [    N,   117,     N,     N,     N], // ipc
    [   62,    37,    62,   129,    37], // kill
    [  445,   445,   445,   445,   445], // landlock_add_rule
    [  444,   444,   444,   444,   444], // landlock_create_ruleset
    [  446,   446,   446,   446,   446], // landlock_restrict_self
    [   94,    16,    94,     N,    16], // lchown
    [    N,   198,     N,     N,   198], // lchown32
    [  192,   230,   192,     9,   230], // lgetxattr
    [   86,     9,    86,     N,     9], // link
    [  265,   303,   265,    37,   330], // linkat
    [   50,   363,    50,   201,   284], // listen
    [  458,   458,   458,   458,   458], // listmount
    [  194,   232,   194,    11,   232], // listxattr
    [  465,   465,   465,   465,   465], // listxattrat
    [  195,   233,   195,    12,   233], // llistxattr
    [    N,   140,     N,     N,   140], // _llseek
    [  198,   236,   198,    15,   236], // lremovexattr
    [    8,    19,     8,    62,    19], // lseek
    [  189,   227,   189,     6,   227], // lsetxattr
    [    6,   107,     6,     N,   107], // lstat
    [    N,   196,     N,     N,   196], // lstat64
    [   28,   219,    28,   233,   220], // madvise
    [  453,   453,   453,   453,   453], // map_shadow_stack
    [  324,   375,   324,   283,   389], // membarrier
    [  319,   356,   319,   279,   385], // memfd_create
    [  447,   447,   447,   447,     N], // memfd_secret
    [   27,   218,    27,   232,   219], // mincore
    [   83,    39,    83,     N,    39], // mkdir
    [  258,   296,   258,    34,   323], // mkdirat
    [  149,   150,   149,   228,   150], // mlock
    [  325,   376,   325,   284,   390], // mlock2
    [  151,   152,   151,   230,   152], // mlockall
    [    9,    90,     9,   222,     N], // mmap
    [    N,   192,     N,     N,   192], // mmap2
    [  154,   123,   154,     N,     N], // modify_ldt
    [   10,   125,    10,   226,   125], // mprotect
    [  245,   282,   245,   185,   279], // mq_getsetattr
    [  244,   281,   527,   184,   278], // mq_notify
    [  240,   277,   240,   180,   274], // mq_open
    [  243,   280,   243,   183,   277], // mq_timedreceive
    [    N,   419,     N,     N,   419], // mq_timedreceive_time64
    [  242,   279,   242,   182,   276], // mq_timedsend
    [    N,   418,     N,     N,   418], // mq_timedsend_time64
    [  241,   278,   241,   181,   275], // mq_unlink
    [   25,   163,    25,   216,   163], // mremap
    [  462,   462,   462,   462,   462], // mseal
    [   71,   402,    71,   187,   304], // msgctl
    [   68,   399,    68,   186,   303], // msgget
    [   70,   401,    70,   188,   302], // msgrcv
    [   69,   400,    69,   189,   301], // msgsnd
    [   26,   144,    26,   227,   144], // msync
    [  150,   151,   150,   229,   151], // munlock
    [  152,   153,   152,   231,   153], // munlockall
    [   11,    91,    11,   215,    91], // munmap
    [  303,   341,   303,   264,   370], // name_to_handle_at
    [   35,   162,    35,   101,   162], // nanosleep
    [  262,     N,   262,    79,     N], // newfstatat
    [    N,   142,     N,     N,   142], // _newselect
    [    2,     5,     2,     N,     5], // open
    [  257,   295,   257,    56,   322], // openat
    [  437,   437,   437,   437,   437], // openat2
    [   34,    29,    34,     N,    29], // pause
    [  434,   434,   434,   434,   434], // pidfd_open
    [  424,   424,   424,   424,   424], // pidfd_send_signal
    [   22,    42,    22,     N,    42], // pipe
    [  293,   331,   293,    59,   359], // pipe2
    [  330,   381,   330,   289,   395], // pkey_alloc
    [  331,   382,   331,   290,   396], // pkey_free
    [  329,   380,   329,   288,   394], // pkey_mprotect
    [    7,   168,     7,     N,   168], // poll
    [  271,   309,   271,    73,   336], // ppoll
    [    N,   414,     N,     N,   414], // ppoll_time64
    [  157,   172,   157,   167,   172], // prctl
    [   17,   180,    17,    67,   180], // pread64
    [  295,   333,   534,    69,   361], // preadv
    [  327,   378,   546,   286,   392], // preadv2
    [  302,   340,   302,   261,   369], // prlimit64
    [  448,   448,   448,   448,   448], // process_mrelease
    [  310,   347,   539,   270,   376], // process_vm_readv
    [  311,   348,   540,   271,   377], // process_vm_writev
    [  270,   308,   270,    72,   335], // pselect6
    [    N,   413,     N,     N,   413], // pselect6_time64
    [  101,    26,   521,   117,    26], // ptrace
    [   18,   181,    18,    68,   181], // pwrite64
    [  296,   334,   535,    70,   362], // pwritev
    [  328,   379,   547,   287,   393], // pwritev2
    [    0,     3,     0,    63,     3], // read
    [  187,   225,   187,   213,   225], // readahead
    [   89,    85,    89,     N,    85], // readlink
    [  267,   305,   267,    78,   332], // readlinkat
    [   19,   145,   515,    65,   145], // readv
    [    N,     N,     N,     N,   291], // recv
    [   45,   371,   517,   207,   292], // recvfrom
    [  299,   337,   537,   243,   365], // recvmmsg
    [    N,   417,     N,     N,   417], // recvmmsg_time64
    [   47,   372,   519,   212,   297], // recvmsg
    [  216,   257,   216,   234,   253], // remap_file_pages
    [  197,   235,   197,    14,   235], // removexattr
    [  466,   466,   466,   466,   466], // removexattrat
    [   82,    38,    82,     N,    38], // rename
    [  264,   302,   264,    38,   329], // renameat
    [  316,   353,   316,   276,   382], // renameat2
    [  219,     0,   219,   128,     0], // restart_syscall
    [   84,    40,    84,     N,    40], // rmdir
    [  334,   386,   334,   293,   398], // rseq
    [   13,   174,   512,   134,   174], // rt_sigaction
    [  127,   176,   522,   136,   176], // rt_sigpending
    [   14,   175,    14,   135,   175], // rt_sigprocmask
    [  129,   178,   524,   138,   178], // rt_sigqueueinfo
    [   15,   173,   513,   139,   173], // rt_sigreturn
    [  130,   179,   130,   133,   179], // rt_sigsuspend
    [  128,   177,   523,   137,   177], // rt_sigtimedwait
    [    N,   421,     N,     N,   421], // rt_sigtimedwait_time64
    [  297,   335,   536,   240,   363], // rt_tgsigqueueinfo
    [  146,   159,   146,   125,   159], // sched_get_priority_max
    [  147,   160,   147,   126,   160], // sched_get_priority_min
    [  204,   242,   204,   123,   242], // sched_getaffinity
    [  315,   352,   315,   275,   381], // sched_getattr
    [  143,   155,   143,   121,   155], // sched_getparam
    [  145,   157,   145,   120,   157], // sched_getscheduler
    [  148,   161,   148,   127,   161], // sched_rr_get_interval
    [    N,   423,     N,     N,   423], // sched_rr_get_interval_time64
    [  203,   241,   203,   122,   241], // sched_setaffinity
    [  314,   351,   314,   274,   380], // sched_setattr
    [  142,   154,   142,   118,   154], // sched_setparam
    [  144,   156,   144,   119,   156], // sched_setscheduler
    [   24,   158,    24,   124,   158], // sched_yield
    [  317,   354,   317,   277,   383], // seccomp
    [   23,    82,    23,     N,     N], // select
    [   66,   394,    66,   191,   300], // semctl
    [   64,   393,    64,   190,   299], // semget
    [   65,     N,    65,   193,   298], // semop
    [  220,     N,   220,   192,   312], // semtimedop
    [    N,   420,     N,     N,   420], // semtimedop_time64
    [    N,     N,     N,     N,   289], // send
    [   40,   187,    40,    71,   187], // sendfile
    [    N,   239,     N,     N,   239], // sendfile64
    [  307,   345,   538,   269,   374], // sendmmsg
    [   46,   370,   518,   211,   296], // sendmsg
    [   44,   369,    44,   206,   290], // sendto
    [  273,   311,   530,    99,   338], // set_robust_list
    [  205,   243,     N,     N,     N], // set_thread_area
    [  218,   258,   218,    96,   256], // set_tid_address
    [    N,     N,     N,     N, 0xf0005], // set_tls
    [  123,   139,   123,   152,   139], // setfsgid
    [    N,   216,     N,     N,   216], // setfsgid32
    [  122,   138,   122,   151,   138], // setfsuid
    [    N,   215,     N,     N,   215], // setfsuid32
    [  106,    46,   106,   144,    46], // setgid
    [    N,   214,     N,     N,   214], // setgid32
    [  116,    81,   116,   159,    81], // setgroups
    [    N,   206,     N,     N,   206], // setgroups32
    [   38,   104,    38,   103,   104], // setitimer
    [  109,    57,   109,   154,    57], // setpgid
    [  141,    97,   141,   140,    97], // setpriority
    [  114,    71,   114,   143,    71], // setregid
    [    N,   204,     N,     N,   204], // setregid32
    [  119,   170,   119,   149,   170], // setresgid
    [    N,   210,     N,     N,   210], // setresgid32
    [  117,   164,   117,   147,   164], // setresuid
    [    N,   208,     N,     N,   208], // setresuid32
    [  113,    70,   113,   145,    70], // setreuid
    [    N,   203,     N,     N,   203], // setreuid32
    [  160,    75,   160,   164,    75], // setrlimit
    [  112,    66,   112,   157,    66], // setsid
    [   54,   366,   541,   208,   294], // setsockopt
    [  105,    23,   105,   146,    23], // setuid
    [    N,   213,     N,     N,   213], // setuid32
    [  188,   226,   188,     5,   226], // setxattr
    [  463,   463,   463,   463,   463], // setxattrat
    [   30,   397,    30,   196,   305], // shmat
    [   31,   396,    31,   195,   308], // shmctl
    [   67,   398,    67,   197,   306], // shmdt
    [   29,   395,    29,   194,   307], // shmget
    [   48,   373,    48,   210,   293], // shutdown
    [  131,   186,   525,   132,   186], // sigaltstack
    [  282,   321,   282,     N,   349], // signalfd
    [  289,   327,   289,    74,   355], // signalfd4
    [    N,   126,     N,     N,   126], // sigprocmask
    [    N,   119,     N,     N,   119], // sigreturn
    [    N,   102,     N,     N,     N], // socketcall
    [   53,   360,    53,   199,   288], // socketpair
    [  275,   313,   275,    76,   340], // splice
    [    4,   106,     4,     N,   106], // stat
    [    N,   195,     N,     N,   195], // stat64
    [  137,    99,   137,    43,    99], // statfs
    [    N,   268,     N,     N,   266], // statfs64
    [  457,   457,   457,   457,   457], // statmount
    [  332,   383,   332,   291,   397], // statx
    [   88,    83,    88,     N,    83], // symlink
    [  266,   304,   266,    36,   331], // symlinkat
    [  162,    36,   162,    81,    36], // sync
    [  277,   314,   277,    84,     N], // sync_file_range
    [    N,     N,     N,     N,   341], // sync_file_range2
    [  306,   344,   306,   267,   373], // syncfs
    [   99,   116,    99,   179,   116], // sysinfo
    [  276,   315,   276,    77,   342], // tee
    [  234,   270,   234,   131,   268], // tgkill
    [  201,    13,   201,     N,     N], // time
    [  222,   259,   526,   107,   257], // timer_create
    [  226,   263,   226,   111,   261], // timer_delete
    [  225,   262,   225,   109,   260], // timer_getoverrun
    [  224,   261,   224,   108,   259], // timer_gettime
    [    N,   408,     N,     N,   408], // timer_gettime64
    [  223,   260,   223,   110,   258], // timer_settime
    [    N,   409,     N,     N,   409], // timer_settime64
    [  283,   322,   283,    85,   350], // timerfd_create
    [  287,   326,   287,    87,   354], // timerfd_gettime
    [    N,   410,     N,     N,   410], // timerfd_gettime64
    [  286,   325,   286,    86,   353], // timerfd_settime
    [    N,   411,     N,     N,   411], // timerfd_settime64
    [  100,    43,   100,   153,    43], // times
    [  200,   238,   200,   130,   238], // tkill
    [   76,    92,    76,    45,    92], // truncate
    [    N,   193,     N,     N,   193], // truncate64
    [    N,   191,     N,     N,   191], // ugetrlimit
    [   95,    60,    95,   166,    60], // umask
    [   63,   122,    63,   160,   122], // uname
    [   87,    10,    87,     N,    10], // unlink
    [  263,   301,   263,    35,   328], // unlinkat
    [  335,     N,   335,     N,     N], // uretprobe
    [  132,    30,   132,     N,     N], // utime
    [  280,   320,   280,    88,   348], // utimensat
    [    N,   412,     N,     N,   412], // utimensat_time64
    [  235,   271,   235,     N,   269], // utimes
    [   58,   190,    58,     N,   190], // vfork
    [  278,   316,   532,    75,   343], // vmsplice
    [   61,   114,    61,   260,   114], // wait4
    [  247,   284,   529,    95,   280], // waitid
    [    N,     7,     N,     N,     N], // waitpid
    [    1,     4,     1,    64,     4], // write
    [   20,   146,   516,    66,   146], // writev
];
