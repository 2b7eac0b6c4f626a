from .data.given_texts import Texts as Texts
from .data.given_texts import texts as texts
from .data.window import Windows as Windows
from .data.windowing import windows as windows
from .diagnosis.diagnosis import Diagnosis as Diagnosis
from .diagnosis.diagnosis import diagnose as diagnose
from .diagnosis.series import HeadSeries as HeadSeries
from .diagnosis.verdicts import Thresholds as Thresholds
from .errors import HeadsurgeonError as HeadsurgeonError
from .evaluation.ablation import Ablation as Ablation
from .evaluation.ablation import ablate as ablate
from .evaluation.ablation_costs import ablation_cost as ablation_cost
from .evaluation.completions import Generation as Generation
from .evaluation.completions import Sampling as Sampling
from .evaluation.completions import side_by_side as side_by_side
from .evaluation.document_loss import evaluate as evaluate
from .evaluation.generation import generate as generate
from .evaluation.head_drift import Drift as Drift
from .evaluation.head_drift import drift as drift
from .evaluation.layer_ablation import LayerAblation as LayerAblation
from .evaluation.layer_ablation import ablate_layers as ablate_layers
from .evaluation.prompt_file import Prompt as Prompt
from .evaluation.prompt_file import read_prompts as read_prompts
from .evaluation.recovery_rule import Recovery as Recovery
from .evaluation.recovery_rule import recovery as recovery
from .evaluation.redistribution import Redistribution as Redistribution
from .evaluation.sweep import Sweep as Sweep
from .head_stats import HeadStats as HeadStats
from .heads import HeadId as HeadId
from .measurement.measuring import measure as measure
from .models.loading import load as load
from .monitoring.monitor import HeadMonitor as HeadMonitor
from .operation.applying import apply_patch as apply_patch
from .operation.chain import apply_patches as apply_patches
from .operation.chain import compose_patches as compose_patches
from .operation.full import FullLearner as FullLearner
from .operation.full import apply_weights as apply_weights
from .operation.full import open_full as open_full
from .operation.lora import LoraLearner as LoraLearner
from .operation.lora import open_lora as open_lora
from .operation.operating import operate as operate
from .operation.patient import Patient as Patient
from .passes.result import Pass as Pass
from .passes.result import Passes as Passes
from .passes.run import run_passes as run_passes
from .planning.plan import Plan as Plan
from .planning.plan import PlannedHead as PlannedHead
from .planning.planning import plan as plan
from .report.folder_page import write_report as write_report
from .scores import (
    Estimate as Estimate,
)
from .scores import (
    Evaluation as Evaluation,
)
from .scores import (
    difference as difference,
)
from .scores import (
    recovered_share as recovered_share,
)
from .study.conclusion import StudyResult as StudyResult
from .study.run import run_study as run_study
from .study.spec import Study as Study
from .training.loop import train as train
from .training.recorded import redistribution as redistribution
from .training.recorded import sweep as sweep
from .training.run_result import Run as Run
from .training.settings import TrainSettings as TrainSettings
from .training.texts import calibration_windows as calibration_windows
from .training.texts import training_windows as training_windows
