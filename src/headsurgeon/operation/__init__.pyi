from .applying import apply_patch as apply_patch
from .operating import operate as operate
from .output_start import OUTPUT_STARTS as OUTPUT_STARTS
from .patch import read_patch as read_patch
from .patient import Change as Change
from .patient import Patient as Patient
from .qkv_start import INITS as INITS
