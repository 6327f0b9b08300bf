#include "server/metrics/family_list.h"

#include <algorithm>
#include <limits>
#include <utility>

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

namespace tessera::metrics {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

struct FamilyList::Families {
  ClientMetric::Label model_label;
  std::string role;
  std::vector<MetricFamily> list;
  size_t current = 0;

  void begin(const char* name, const char* help, MetricType type) {
    const auto same_name = [name](const MetricFamily& family) { return family.name == name; };
    current = static_cast<size_t>(std::find_if(list.begin(), list.end(), same_name) - list.begin());
    if (current == list.size()) {
      list.push_back({name, help, type, {}});
    }
  }
  ClientMetric& add(const Labels& labels) {
    ClientMetric& metric = list[current].metric.emplace_back();
    metric.label.push_back(model_label);
    if (!role.empty()) {
      metric.label.push_back({"role", role});
    }
    for (const auto& [name, value] : labels) {
      metric.label.push_back({name, value});
    }
    return metric;
  }
};

FamilyList::FamilyList(const std::string& model_name) : families_(std::make_unique<Families>()) {
  families_->model_label = {"model_name", model_name};
}

FamilyList::~FamilyList() = default;

void FamilyList::set_role(std::string role) {
  families_->role = std::move(role);
}

void FamilyList::counter(const char* name, const char* help, const Counter& value) {
  begin_counters(name, help);
  add({}, static_cast<double>(value.value()));
}

void FamilyList::gauge(const char* name, const char* help, double value) {
  begin_gauges(name, help);
  add({}, value);
}

void FamilyList::histogram(const char* name, const char* help, const LatencyHistogram& value) {
  begin_histograms(name, help);
  add({}, value);
}

void FamilyList::begin_counters(const char* name, const char* help) {
  families_->begin(name, help, MetricType::Counter);
}

void FamilyList::begin_gauges(const char* name, const char* help) {
  families_->begin(name, help, MetricType::Gauge);
}

void FamilyList::begin_histograms(const char* name, const char* help) {
  families_->begin(name, help, MetricType::Histogram);
}

void FamilyList::add(const Labels& labels, double value) {
  ClientMetric& metric = families_->add(labels);
  metric.counter.value = value;  // the family's type says which of the two is written
  metric.gauge.value = value;
}

void FamilyList::add(const Labels& labels, const LatencyHistogram& value) {
  ClientMetric::Histogram& out = families_->add(labels).histogram;
  uint64_t count = 0;
  for (size_t i = 0; i <= LatencyHistogram::kUpperBounds.size(); ++i) {
    count += static_cast<uint64_t>(value.bucket(i));
    const bool is_last = i == LatencyHistogram::kUpperBounds.size();
    out.bucket.push_back(
        {count,
         is_last ? std::numeric_limits<double>::infinity() : LatencyHistogram::kUpperBounds[i]});
  }
  out.sample_count = count;
  out.sample_sum = value.sum();
}

std::string FamilyList::text() const {
  return prometheus::TextSerializer().Serialize(families_->list);
}

}  // namespace tessera::metrics
