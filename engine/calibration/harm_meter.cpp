#include "engine/calibration/harm_meter.h"

#include <algorithm>
#include <utility>

#include "engine/parallel/thread_communicator.h"
#include "engine/weights/tpla_transform.h"

namespace tessera {

Result<std::unique_ptr<HarmMeter>> HarmMeter::create(const CalibrationModel& model,
                                                     const QualityLengths& lengths) {
  std::unique_ptr<HarmMeter> meter(new HarmMeter(model, lengths));
  TESSERA_TRY(meter->exact_, MeasuredModel::create(model.parts, meter->options()));
  return meter;
}

HarmMeter::HarmMeter(const CalibrationModel& model, const QualityLengths& lengths)
    : model_(model),
      lengths_(lengths),
      threads_(make_thread_communicators(model.num_threads, model.num_threads)) {}

MeasuredOptions HarmMeter::options() const {
  MeasuredOptions options;
  options.dtype = model_.dtype;
  options.num_threads = model_.num_threads;
  options.max_prompt = lengths_.prefill_tokens;
  options.max_length = lengths_.window_tokens() - 1;
  return options;
}

int64_t HarmMeter::max_calibrations() const {
  // Beside the exact model, whose size nobody can avoid, at most this much.
  constexpr int64_t kMaxBytes = int64_t{1} << 30;
  const int64_t num_bytes = std::max<int64_t>(1, exact_->runner().weights(0).num_bytes);
  return std::clamp<int64_t>(kMaxBytes / num_bytes, 1, 8);
}

Result<std::unique_ptr<MeasuredModel>> HarmMeter::load(const TplaCalibration& calibration) {
  const TplaTransform transform = TplaTransform::create(model_.parts.config, calibration);
  MeasuredOptions cut = options();
  cut.transform = &transform;
  cut.sharding = {.attention = AttentionSharding::kTpla,
                  .num_ranks = calibration.num_slices,
                  .num_slices = calibration.num_slices,
                  .shared_columns = transform.shared_columns(),
                  .window = transform.window()};
  return MeasuredModel::create(model_.parts, cut);
}

Result<std::vector<QualitySummary>> HarmMeter::measure(
    std::span<const TplaCalibration> calibrations,
    std::span<const TextWindow> windows,
    const QualityProgress& progress) {
  std::vector<std::unique_ptr<MeasuredModel>> loaded;
  std::vector<MeasuredModel*> modes;
  for (const TplaCalibration& calibration : calibrations) {
    TESSERA_TRY(auto model, load(calibration));
    modes.push_back(model.get());
    loaded.push_back(std::move(model));
  }
  TESSERA_TRY(const std::vector<Quality> qualities,
              measure_quality({.exact = *exact_,
                               .modes = modes,
                               .windows = windows,
                               .lengths = lengths_,
                               .threads = threads_},
                              progress));
  std::vector<QualitySummary> summaries;
  for (const Quality& quality : qualities) {
    summaries.push_back(summarize(quality));
  }
  return summaries;
}

}  // namespace tessera
