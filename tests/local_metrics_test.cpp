// SPDX-License-Identifier: Apache-2.0
//
// PutMetricData: every rule at its limit and one past it, and the sums that come of it.
#include "local/limits.hpp"
#include "support/local_gateway.hpp"

namespace spillway::local {
namespace {

constexpr const char* value_code = "InvalidParameterValueException";
constexpr const char* missing_code = "MissingRequiredParameterException";
constexpr const char* combination_code = "InvalidParameterCombinationException";
constexpr const char* type_code = "SerializationException";

std::string request_of(const std::string& datums, const std::string& metric_namespace = "Shop") {
  return R"({"Namespace":")" + metric_namespace + R"(","MetricData":[)" + datums + "]}";
}
std::string datum(const std::string& fields) { return R"({"MetricName":"M",)" + fields + "}"; }
std::string dimension(const std::string& name, const std::string& value) {
  return R"({"Name":")" + name + R"(","Value":")" + value + R"("})";
}
std::string dimensions(std::size_t count) {
  std::string list;
  for (std::size_t i = 0; i < count; ++i) {
    list += (i == 0 ? "" : ",") + dimension("D" + std::to_string(i), "v");
  }
  return R"("Value":1,"Dimensions":[)" + list + "]";
}
std::string statistics(const char* count, const char* sum, const char* min, const char* max) {
  return std::string(R"("StatisticValues":{"SampleCount":)") + count + R"(,"Sum":)" + sum +
         R"(,"Minimum":)" + min + R"(,"Maximum":)" + max + "}";
}

class LocalMetricsTest : public LocalGatewayTest {
 protected:
  Reply put(std::string body) {
    return call(Service::monitoring, put_metric_data, std::move(body));
  }
  std::string at(double seconds_from_now) {
    return datum(R"("Value":1,"Timestamp":)" + std::to_string(now_s() + seconds_from_now));
  }
};

TEST_F(LocalMetricsTest, EnforcesEachRule) {
  constexpr double two_weeks = 14 * 86400;
  struct Case {
    const char* name;
    std::string body;
    const char* code;  // "" for accepted.
  };
  const std::vector<Case> cases{
      {"no namespace", R"({"MetricData":[{"MetricName":"M","Value":1}]})", missing_code},
      {"empty namespace", request_of(datum(R"("Value":1)"), ""), value_code},
      {"namespace of 255", request_of(datum(R"("Value":1)"), repeat("n", 255)), ""},
      {"namespace of 256", request_of(datum(R"("Value":1)"), repeat("n", 256)), value_code},
      {"namespace with a colon first", request_of(datum(R"("Value":1)"), ":Shop"), value_code},
      {"namespace with a colon later", request_of(datum(R"("Value":1)"), "Sh:op"), ""},
      {"namespace of AWS", request_of(datum(R"("Value":1)"), "AWS/EC2"), value_code},
      {"namespace past ASCII", request_of(datum(R"("Value":1)"), "Sh\xC3\xB6p"), value_code},
      {"namespace with a control", request_of(datum(R"("Value":1)"), R"(Sh\top)"), value_code},
      {"namespace of another type", R"({"Namespace":1,"MetricData":[]})", type_code},

      {"no datums", request_of(""), missing_code},
      {"no MetricData", R"({"Namespace":"Shop"})", missing_code},
      {"MetricData of another type", R"({"Namespace":"Shop","MetricData":{}})", type_code},
      {"1000 datums", request_of(list_of(datum(R"("Value":1)"), 1000)), ""},
      {"1001 datums", request_of(list_of(datum(R"("Value":1)"), 1001)), value_code},
      {"datum that is none", request_of("1"), type_code},

      {"no name", request_of(R"({"Value":1})"), missing_code},
      {"null name", request_of(R"({"MetricName":null,"Value":1})"), missing_code},
      {"empty name", request_of(R"({"MetricName":"","Value":1})"), value_code},
      {"name of 255", request_of(R"({"MetricName":")" + repeat("m", 255) + R"(","Value":1})"), ""},
      {"name of 256", request_of(R"({"MetricName":")" + repeat("m", 256) + R"(","Value":1})"),
       value_code},
      {"name past ASCII", request_of(R"({"MetricName":"é","Value":1})"), value_code},

      {"30 dimensions", request_of(datum(dimensions(30))), ""},
      {"31 dimensions", request_of(datum(dimensions(31))), value_code},
      {"dimension without a value", request_of(datum(R"("Value":1,"Dimensions":[{"Name":"A"}])")),
       missing_code},
      {"dimension without a name", request_of(datum(R"("Value":1,"Dimensions":[{"Value":"A"}])")),
       missing_code},
      {"empty dimension value",
       request_of(datum(R"("Value":1,"Dimensions":[)" + dimension("A", "") + "]")), value_code},
      {"blank dimension value",
       request_of(datum(R"("Value":1,"Dimensions":[)" + dimension("A", "  ") + "]")), value_code},
      {"dimension value of 1024",
       request_of(datum(R"("Value":1,"Dimensions":[)" + dimension("A", repeat("v", 1024)) + "]")),
       ""},
      {"dimension value of 1025",
       request_of(datum(R"("Value":1,"Dimensions":[)" + dimension("A", repeat("v", 1025)) + "]")),
       value_code},
      {"dimension name of 255",
       request_of(datum(R"("Value":1,"Dimensions":[)" + dimension(repeat("n", 255), "v") + "]")),
       ""},
      {"dimension name of 256",
       request_of(datum(R"("Value":1,"Dimensions":[)" + dimension(repeat("n", 256), "v") + "]")),
       value_code},
      {"dimension name with a colon first",
       request_of(datum(R"("Value":1,"Dimensions":[)" + dimension(":A", "v") + "]")), value_code},
      {"dimension value past ASCII",
       request_of(datum(R"("Value":1,"Dimensions":[)" + dimension("A", "é") + "]")), value_code},
      {"dimension name twice",
       request_of(datum(R"("Value":1,"Dimensions":[)" + dimension("A", "1") + "," +
                        dimension("A", "2") + "]")),
       value_code},

      {"no kind of value", request_of(datum(R"("Unit":"Count")")), missing_code},
      {"empty Values", request_of(datum(R"("Values":[])")), missing_code},
      {"Value and Values", request_of(datum(R"("Value":1,"Values":[1])")), combination_code},
      {"Value and statistics", request_of(datum(R"("Value":1,)" + statistics("1", "1", "1", "1"))),
       combination_code},
      {"Value and Counts", request_of(datum(R"("Value":1,"Counts":[1])")), combination_code},
      {"statistics alone", request_of(datum(statistics("2", "3", "1", "2"))), ""},
      {"Values, Counts and statistics",
       request_of(datum(R"("Values":[1,2],"Counts":[1,1],)" + statistics("2", "3", "1", "2"))), ""},
      {"Values without Counts", request_of(datum(R"("Values":[1,2])")), ""},
      {"150 Values", request_of(datum(R"("Values":[)" + list_of("1", 150) + "]")), ""},
      {"151 Values", request_of(datum(R"("Values":[)" + list_of("1", 151) + "]")), value_code},
      {"fewer Counts", request_of(datum(R"("Values":[1,2],"Counts":[1])")), value_code},
      {"more Counts", request_of(datum(R"("Values":[1],"Counts":[1,1])")), value_code},
      {"fraction in Counts", request_of(datum(R"("Values":[1],"Counts":[0.5])")), ""},
      {"negative Counts", request_of(datum(R"("Values":[1],"Counts":[-1])")), value_code},

      {"statistics without Sum",
       request_of(datum(R"("StatisticValues":{"SampleCount":1,"Minimum":1,"Maximum":1})")),
       missing_code},
      {"statistics of no samples", request_of(datum(statistics("0", "0", "0", "0"))), value_code},
      {"Minimum above Maximum", request_of(datum(statistics("1", "1", "2", "1"))), value_code},

      {"NaN", request_of(datum(R"("Value":"NaN")")), value_code},
      {"Infinity", request_of(datum(R"("Value":"Infinity")")), value_code},
      {"-Infinity in Values", request_of(datum(R"("Values":[1,"-Infinity"])")), value_code},
      {"number as text", request_of(datum(R"("Value":"1")")), type_code},
      {"2^360", request_of(datum(R"("Value":2.348542582773833e108)")), ""},
      {"above 2^360", request_of(datum(R"("Value":2.348542582773834e108)")), value_code},
      {"-2^360", request_of(datum(R"("Value":-2.348542582773833e108)")), ""},
      {"below -2^360", request_of(datum(R"("Value":-2.348542582773834e108)")), value_code},
      {"smallest magnitude", request_of(datum(R"("Value":8.515920e-109)")), ""},
      {"below the smallest", request_of(datum(R"("Value":8.515919e-109)")), value_code},
      {"zero", request_of(datum(R"("Value":0)")), ""},
      {"negative", request_of(datum(R"("Value":-1.5)")), ""},

      {"two weeks ago", request_of(at(-two_weeks)), ""},
      {"a second more", request_of(at(-two_weeks - 1)), value_code},
      {"in two hours", request_of(at(7200)), ""},
      {"a second later", request_of(at(7201)), value_code},
      {"milliseconds by mistake", request_of(datum(R"("Value":1,"Timestamp":1795220308123)")),
       value_code},
      {"time as text", request_of(datum(R"("Value":1,"Timestamp":"2026-11-21T08:00:00Z")")),
       type_code},

      {"resolution 1", request_of(datum(R"("Value":1,"StorageResolution":1)")), ""},
      {"resolution 60", request_of(datum(R"("Value":1,"StorageResolution":60)")), ""},
      {"resolution 30", request_of(datum(R"("Value":1,"StorageResolution":30)")), value_code},
      {"unit", request_of(datum(R"("Value":1,"Unit":"Megabits/Second")")), ""},
      {"unit in lower case", request_of(datum(R"("Value":1,"Unit":"seconds")")), value_code},
      {"unit that is none", request_of(datum(R"("Value":1,"Unit":"Nanoseconds")")), value_code},
      {"null unit", request_of(datum(R"("Value":1,"Unit":null)")), ""},

      {"not JSON", "{", type_code},
      {"not an object", "[]", type_code},
      {"no body", "", type_code},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    store_.clear();
    const Reply reply = put(c.body);
    EXPECT_EQ(code_of(reply), c.code) << reply.body;
    const bool taken = c.code[0] == '\0';
    EXPECT_EQ(reply.status, taken ? 200 : 400);
    // All or nothing: what is refused leaves no trace.
    EXPECT_EQ(store_.metrics.find({}, {}).empty(), !taken);
  }
}

TEST_F(LocalMetricsTest, OneBadDatumRefusesAll) {
  EXPECT_EQ(put(request_of(datum(R"("Value":1)") + "," + datum(R"("Value":"NaN")"))).status, 400);
  EXPECT_TRUE(store_.metrics.find({}, {}).empty());
}

TEST_F(LocalMetricsTest, CountsDatumsOfEntitiesToo) {
  const std::string entity =
      R"("Entity":{"KeyAttributes":{"Type":"Service","Name":"orders","Environment":"prod"}})";
  const auto body = [&](std::size_t first, std::size_t second) {
    return R"({"Namespace":"Shop","StrictEntityValidation":true,"MetricData":[)" +
           list_of(datum(R"("Value":1)"), first) + R"(],"EntityMetricData":[{)" + entity +
           R"(,"MetricData":[)" + list_of(datum(R"("Value":1)"), second) + "]}]}";
  };
  EXPECT_EQ(code_of(put(body(500, 500))), "");
  EXPECT_EQ(code_of(put(body(500, 501))), value_code);
}

TEST_F(LocalMetricsTest, ABadEntityFailsOnlyAStrictRequest) {
  struct Case {
    const char* entity;
    const char* problem;  // "" for a valid one.
  };
  const std::vector<Case> cases{
      {R"({"KeyAttributes":{"Type":"Service","Name":"o","Environment":"p"}})", ""},
      {R"({"KeyAttributes":{"Type":"AWS::Resource","ResourceType":"T","Identifier":"i"}})", ""},
      {R"({})", "InvalidEntity"},
      {R"({"KeyAttributes":{"Type":"Service"}})", "InvalidKeyAttributes"},
      {R"({"KeyAttributes":{"Type":"Service","Name":"o","Shape":"p"}})", "InvalidKeyAttributes"},
      {R"({"KeyAttributes":{"Type":"Service","Name":"","Environment":"p"}})",
       "InvalidKeyAttributes"},
      {R"({"KeyAttributes":{"Type":"Thing","Name":"o"}})", "InvalidTypeValue"},
      {R"({"KeyAttributes":{"Type":"Service","Name":"o"}})", "MissingRequiredFields"},
      {R"({"KeyAttributes":{"Name":"o","Environment":"p"}})", "MissingRequiredFields"},
      {R"({"KeyAttributes":{"Type":"Service","Name":"o","Environment":"p"},"Attributes":{"a":1}})",
       "InvalidAttributes"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.entity);
    for (const bool strict : {false, true}) {
      const Reply reply = put(std::string(R"({"Namespace":"Shop","StrictEntityValidation":)") +
                              (strict ? "true" : "false") + R"(,"EntityMetricData":[{"Entity":)" +
                              c.entity + R"(,"MetricData":[{"MetricName":"M","Value":1}]}]})");
      const bool valid = c.problem[0] == '\0';
      EXPECT_EQ(reply.status, valid || !strict ? 200 : 400) << reply.body;
      if (!strict) {
        EXPECT_EQ(transport::find_header(reply.headers, "x-amzn-failure-message"), c.problem);
      }
    }
  }
  EXPECT_EQ(code_of(put(R"({"Namespace":"Shop","EntityMetricData":[]})")), missing_code);
}

TEST_F(LocalMetricsTest, SumsWhatCame) {
  put(request_of(datum(R"("Value":5,"Unit":"Count")")));
  put(request_of(datum(R"("Values":[2,10],"Counts":[3,1],"Unit":"Count")")));
  put(request_of(datum(R"("Unit":"Count",)" + statistics("4", "8", "-1", "7"))));
  put(request_of(datum(R"("Value":1,"Unit":"Count","StorageResolution":1)")));
  const auto series = store_.metrics.find("Shop", "M");
  ASSERT_EQ(series.size(), 2U);
  EXPECT_EQ(series[0].storage_resolution, 1);
  const MetricStatistics& sums = series[1];
  EXPECT_EQ(sums.unit, "Count");
  EXPECT_EQ(sums.datum_count, 3U);
  EXPECT_EQ(sums.sample_count, 1 + 4 + 4);
  EXPECT_EQ(sums.sum, 5 + 16 + 8);
  EXPECT_EQ(sums.minimum, -1);
  EXPECT_EQ(sums.maximum, 10);
  const std::vector<std::pair<double, double>> values{{2, 3}, {5, 1}, {10, 1}};
  EXPECT_EQ(sums.values, values);
}

TEST_F(LocalMetricsTest, StatisticsBesideValuesCarryTheTruth) {
  put(request_of(datum(R"("Values":[1.05,2.1],"Counts":[3,1],)" + statistics("4", "5", "1", "2"))));
  const auto series = store_.metrics.find("Shop", "M");
  ASSERT_EQ(series.size(), 1U);
  EXPECT_EQ(series[0].sample_count, 4);
  EXPECT_EQ(series[0].sum, 5);
  EXPECT_EQ(series[0].maximum, 2);
  EXPECT_EQ(series[0].values.size(), 2U);
}

TEST_F(LocalMetricsTest, DimensionsInAnyOrderAreOneSeries) {
  put(request_of(datum(R"("Value":1,"Dimensions":[)" + dimension("A", "1") + "," +
                       dimension("B", "2") + "]")));
  put(request_of(datum(R"("Value":1,"Dimensions":[)" + dimension("B", "2") + "," +
                       dimension("A", "1") + "]")));
  put(request_of(datum(R"("Value":1,"Dimensions":[)" + dimension("A", "2") + "," +
                       dimension("B", "1") + "]")));
  const auto series = store_.metrics.find("Shop", "M");
  ASSERT_EQ(series.size(), 2U);
  EXPECT_EQ(series[0].datum_count, 2U);
}

// ---- Bodies ----

TEST_F(LocalMetricsTest, InflatesGzip) {
  transport::HttpRequest request =
      aws_request(Service::monitoring, put_metric_data, gzip(request_of(datum(R"("Value":1)"))));
  request.headers.push_back({"Content-Encoding", "gzip"});
  sign(request, Service::monitoring, now_);
  EXPECT_EQ(send(request).status, 200);
  EXPECT_GT(store_.statistics.inflated_bytes, 0U);
}

TEST_F(LocalMetricsTest, BoundsWhatGzipBecomes) {
  const std::size_t max = limits::inflated_bytes_max;
  const std::string frame = request_of(datum(R"("Value":1)"));
  for (const std::size_t excess : {std::size_t{0}, std::size_t{1}}) {
    transport::HttpRequest request =
        aws_request(Service::monitoring, put_metric_data,
                    gzip(frame + std::string(max - frame.size() + excess, ' ')));
    ASSERT_LT(request.body.size(), 100'000U);
    request.headers.push_back({"Content-Encoding", "gzip"});
    sign(request, Service::monitoring, now_);
    const Reply reply = send(request);
    EXPECT_EQ(reply.status, excess == 0 ? 200 : 413) << reply.body;
  }
}

TEST_F(LocalMetricsTest, RefusesBrokenEncodings) {
  const std::string whole = gzip(request_of(datum(R"("Value":1)")));
  struct Case {
    std::string body;
    const char* encoding;
  };
  for (const Case& c : {Case{whole.substr(0, whole.size() - 1), "gzip"}, Case{whole + "x", "gzip"},
                        Case{"", "gzip"}, Case{"{}", "gzip"}, Case{"{}", "br"}}) {
    transport::HttpRequest request = aws_request(Service::monitoring, put_metric_data, c.body);
    request.headers.push_back({"Content-Encoding", c.encoding});
    sign(request, Service::monitoring, now_);
    EXPECT_EQ(code_of(send(request)), type_code);
  }
}

TEST_F(LocalMetricsTest, BoundsTheBodyBeforeReadingIt) {
  transport::HttpRequest head = aws_request(Service::monitoring, put_metric_data, {});
  head.headers.push_back({"Host", "localhost"});
  EXPECT_FALSE(gateway_.screen(head, limits::metric_body_bytes_max));
  const auto refusal = gateway_.screen(head, limits::metric_body_bytes_max + 1);
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->status, 413);
  EXPECT_EQ(code_of(*refusal), "RequestEntityTooLarge");
}

// ---- Reading back ----

TEST_F(LocalMetricsTest, ReadsBackAsJson) {
  put(request_of(
      datum(R"("Value":5,"Unit":"Count","Dimensions":[)" + dimension("A", "x\\\"y") + "]")));
  const Reply reply = page("GET", "metrics", "namespace=Shop&values=1");
  simdjson::dom::parser parser;
  const simdjson::dom::element root = parser.parse(reply.body);
  const simdjson::dom::element series = root["series"].at(0);
  EXPECT_EQ(std::string_view(series["name"]), "M");
  EXPECT_EQ(std::string_view(series["dimensions"]["A"]), "x\"y");
  EXPECT_EQ(double(series["sum"]), 5);
  EXPECT_EQ(double(series["values"].at(0).at(1)), 1);
  EXPECT_EQ(std::int64_t(series["storage_resolution"]), 60);
  EXPECT_NE(page("GET", "metrics", "namespace=Other").body.find(R"("series":[])"),
            std::string::npos);
}

}  // namespace
}  // namespace spillway::local
