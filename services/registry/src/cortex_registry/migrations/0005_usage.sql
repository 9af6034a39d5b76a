-- Usage by month, and its hourly sums.
SELECT 1;
