#include "engine/calibration/harm_meter.h"

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

Result<QualitySummary> HarmMeter::measure(const TplaCalibration& calibration,
                                          std::span<const TextWindow> windows,
                                          const QualityProgress& progress) {
  const auto transform = TplaTransform::create(model_.parts.config, calibration);
  MeasuredOptions cut = options();
  cut.transform = &transform;
  cut.sharding = {.attention = AttentionSharding::kTpla,
                  .num_ranks = calibration.num_slices,
                  .num_slices = calibration.num_slices,
                  .shared_columns = transform.shared_columns()};
  TESSERA_TRY(const auto mode, MeasuredModel::create(model_.parts, cut));
  TESSERA_TRY(const Quality quality,
              measure_quality({.exact = *exact_,
                               .mode = *mode,
                               .windows = windows,
                               .lengths = lengths_,
                               .threads = threads_},
                              progress));
  return summarize(quality);
}

}  // namespace tessera
