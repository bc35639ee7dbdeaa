// SPDX-License-Identifier: Apache-2.0
#include "local/operations.hpp"

namespace spillway::local {

Answer call_monitoring(const Call& call) {
  MetricBatch batch;
  if (auto refusal = read_metric_batch(call.request, call.now, batch)) return *std::move(refusal);
  {
    const std::scoped_lock lock(call.store.mutex);
    call.store.metrics.add(batch);
  }
  Reply reply = ok_reply(Service::monitoring, "{}");
  if (!batch.entity_failure.empty()) {
    reply.headers.push_back({"X-Amzn-Failure-Message", std::string(batch.entity_failure)});
  }
  return reply;
}

}  // namespace spillway::local
