"""Callables that no file of weights may call: a pickle with one was made to do harm."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Modules whose functions run code, reach files, other programs or the network; below `torch.os` too.
DANGEROUS_ANYWHERE = _names(
    "os posix nt posixpath ntpath subprocess sys builtins __builtin__ importlib imp pty ctypes _ctypes socket shutil "
    "runpy pkgutil commands popen2 webbrowser"
)


DANGEROUS_MODULES = _names(
    "_aix_support _osx_support _pickle _posixsubprocess _pyrepl _socket _thread aiohttp asyncio atexit bdb cProfile "
    "cloudpickle code codeop dill doctest ensurepip faulthandler fileinput ftplib http "
    "httplib idlelib ipykernel IPython joblib lib2to3 linecache logging marshal mmap multiprocessing netrc "
    "pdb pickle pip platform poplib profile pydoc requests sched select selectors setuptools shelve signal site "
    "smtplib sqlite3 ssl sysconfig tarfile telnetlib tempfile threading timeit tkinter trace turtle unittest urllib "
    "urllib2 urllib3 venv wsgiref xmlrpc zipfile zipimport"
)


DANGEROUS_FUNCTIONS = _names(
    "operator.attrgetter operator.methodcaller _operator.attrgetter _operator.methodcaller types.CodeType "
    "types.FunctionType types.LambdaType types.MethodType types.ModuleType new.code new.function torch.load "
    "torch.serialization.load torch.storage._load_from_bytes torch.jit.load torch.hub.load "
    "io.open _io.open io.open_code io.FileIO _io.FileIO itertools.imap torch.package.PackageImporter "
    "torch.compile numpy.load numpy.fromfile numpy.memmap numpy.lib.npyio.load "
    "numpy.testing._private.utils.runstring numpy.f2py.compile pandas.read_pickle torch.utils.cpp_extension.load "
    "torch.utils.collect_env.run "
    "copyreg.add_extension copyreg.pickle"
)


HARMLESS_BUILTINS = _names(
    "bool bytearray bytes complex dict enumerate float frozenset int list object range reversed set slice str tuple "
    "type property NoneType Ellipsis NotImplemented long unicode xrange basestring"
)


HARMLESS_LOGGING = frozenset(("getLogger", "Logger"))  # how a logger among the hyper-parameters is pickled


def is_dangerous(name: str) -> bool:
    """Whether calling what bears this dotted name could run code or reach beyond the file, if it were called."""
    *modules, function = name.split(".")
    if modules == ["builtins"]:
        return function not in HARMLESS_BUILTINS and not function.endswith(("Error", "Exception"))
    if modules == ["logging"] and function in HARMLESS_LOGGING:
        return False
    if not DANGEROUS_ANYWHERE.isdisjoint(modules) or not DANGEROUS_MODULES.isdisjoint(modules[:1]):
        return True
    return name in DANGEROUS_FUNCTIONS
